use std::process::Stdio;

use tests::harness::{PATIENCE, Projection, Setup, wait_until};

use super::{bytes, history, number, operator, rebuild, refused, setup};
use crate::projector::SHORT_LEASE;

/// Every step at which a rebuild may die, in order, with the command that gets there.
const STEPS: &[(&str, &str)] = &[
    ("rebuild-begun", "start"),
    ("rebuild-copied", "start"),
    ("rebuild-pass", "start"),
    ("rebuild-index", "start"),
    ("rebuild-checked", "start"),
    ("lane-commit", "start"),
    ("agents-commit", "start"),
    ("rebuild-caught-up", "start"),
    ("rebuild-swap", "swap"),
    ("rebuild-swap-locked", "swap"),
    ("rebuild-swap-commit", "swap"),
    ("rebuild-swapped", "swap"),
];

/// A dead process counts as silent after ten seconds; the test does not wait for them.
async fn silent(projection: &Projection) {
    sqlx::query("update rebuild set heartbeat_at = now() - interval '1 minute'")
        .execute(&projection.ground.database.pool)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_phase_a_rebuild_goes_on_where_it_was() {
    let mut projection = Projection::start(setup(&[SHORT_LEASE])).await;
    projection.publish(&history(400, 3000, 51)).await;
    projection.check().await;
    let salt = history(400, 800, 52);
    for ((step, command), part) in STEPS.iter().zip(salt.chunks(salt.len().div_ceil(STEPS.len()))) {
        let environment = [
            ("FAILPOINTS", &*format!("{step}=return")),
            ("LEADPULSE_PROJECTOR_REBUILD_MEMORY_MIB", "1"),
        ];
        projection.publish(part).await;
        let output = operator(&projection, &[command], &environment);
        assert!(output.status.code().is_none(), "it did not die at {step}: {output:?}");
        projection.settle().await;
        if *step != "rebuild-swapped" {
            let alive = refused(&projection, &[command]);
            assert!(alive.contains("heard of"), "{step}: {alive}");
        }
        silent(&projection).await;
        if *step == "rebuild-caught-up" {
            rebuild(&projection, &["start"]);
        }
    }
    projection.check().await;
    let phase = "select count(*) from rebuild where phase = 'swapped' and next_bucket = 1024";
    assert_eq!(number(&projection, phase).await, 1);
    let now = bytes(&projection).await;
    rebuild(&projection, &["rollback"]);
    assert_eq!(bytes(&projection).await, now, "the old tables, caught up, are the same");
    projection.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_one_is_told_no_and_an_abort_ends_the_others_work() {
    let mut projection = Projection::start(setup(&[SHORT_LEASE])).await;
    projection.publish(&history(20, 600, 53)).await;
    projection.check().await;
    let first = projection
        .ground
        .command("projector", &["rebuild", "start", "--yes"])
        .env("FAILPOINTS", "rebuild-checked=sleep(60000)")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the first operator's rebuild goes on", PATIENCE, async || {
        number(&projection, "select count(*) from rebuild where phase = 'checking'").await == 1
    })
    .await;
    let second = refused(&projection, &["start"]);
    assert!(second.contains("heard of"), "{second}");
    let early = refused(&projection, &["swap"]);
    assert!(early.contains("checking"), "{early}");
    rebuild(&projection, &["abort"]);
    let schemas = "select count(*) from pg_namespace where nspname like 'leadpulse%'";
    assert_eq!(number(&projection, schemas).await, 0, "what it made is dropped");
    let mut first = first;
    first.kill().unwrap();
    first.wait().unwrap();
    rebuild(&projection, &["start", "--swap"]);
    projection.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarted_in_the_middle_ends_the_process_and_loses_nothing() {
    let mut projection =
        Projection::start(Setup { own_postgres: true, ..setup(&[SHORT_LEASE]) }).await;
    projection.publish(&history(40, 1500, 54)).await;
    projection.check().await;
    for step in ["rebuild-copied", "rebuild-index", "rebuild-swap"] {
        let command = if step == "rebuild-swap" { "swap" } else { "start" };
        let mut child = projection
            .ground
            .command("projector", &["rebuild", command, "--yes", "--json"])
            .env("FAILPOINTS", format!("{step}=sleep(1500)"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // In the middle of the pause, or before it on a slow machine: whenever it is, nothing may be lost.
        tokio::time::sleep(std::time::Duration::from_millis(900)).await;
        let server = projection.ground.database.server();
        server.kill9();
        server.restart().unwrap();
        let status = tokio::task::block_in_place(|| child.wait().unwrap());
        projection.publish(&history(40, 60, 55)).await;
        projection.settle().await;
        silent(&projection).await;
        if !status.success() {
            rebuild(&projection, &["start"]);
            silent(&projection).await;
        }
    }
    if number(&projection, "select count(*) from rebuild where phase = 'swapped'").await == 0 {
        rebuild(&projection, &["swap"]);
    }
    projection.check().await;
}
