//! Binaries and schemas of different versions beside each other.

use tests::harness::{PATIENCE, Projection, wait_until};

use super::{history, setup};

/// The exit code of `projector` with these words, and what it said.
fn types(projection: &Projection, words: &[&str]) -> (Option<i32>, String) {
    let output = projection.ground.run("projector", words);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

async fn execute(projection: &Projection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&projection.ground.database.pool).await.unwrap();
}

#[tokio::test]
async fn a_projector_that_is_older_than_the_schema_says_so_and_writes_nothing() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(10, 100, 51)).await;
    projection.check().await;
    projection.projector.kill9();
    execute(
        &projection,
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (29990101000000, 'of a later release', true, '', 0)",
    )
    .await;
    let before = projection.leads().await;
    projection.publish(&history(10, 100, 52)).await;
    projection.projector.restart().unwrap();
    let newer =
        "the schema is newer than this binary, which does not know its migration 29990101000000";
    wait_until("it says so", PATIENCE, async || {
        projection.projector.page("/health/readiness").await.body.contains(newer)
    })
    .await;
    assert_eq!(projection.projector.page("/health/liveness").await.status, 200);
    let (code, said) = types(&projection, &["migrate"]);
    assert!(code == Some(1) && said.contains(newer), "{code:?}: {said}");
    let (code, said) = types(&projection, &["pause", "--reason", "x", "--yes"]);
    assert!(code == Some(1) && said.contains("take the newer one"), "{code:?}: {said}");
    assert_eq!(projection.leads().await, before);

    execute(&projection, "delete from _sqlx_migrations where version = 29990101000000").await;
    projection.check().await;
    projection.projector.wait_until_ready().await;
}

#[tokio::test]
async fn a_schema_that_is_older_than_the_binary_is_migrated_by_the_projector_and_by_no_other_command()
 {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(10, 100, 53)).await;
    projection.check().await;
    projection.projector.kill9();
    // The last migration takes itself back.
    execute(
        &projection,
        "drop table projection_fault; delete from _sqlx_migrations where version = 20261125191000",
    )
    .await;
    let (code, said) = types(&projection, &["pause", "--reason", "x", "--yes"]);
    assert!(code == Some(1) && said.contains("`projector migrate` first"), "{code:?}: {said}");
    let (code, said) = types(&projection, &["status"]);
    assert!(code == Some(1) && said.contains("→ projector migrate"), "{code:?}: {said}");
    let (code, said) = types(&projection, &["migrate"]);
    assert_eq!(code, Some(0), "{said}");
    projection.publish(&history(10, 100, 54)).await;
    projection.projector.restart().unwrap();
    projection.check().await;
    assert_eq!(types(&projection, &["status"]).0, Some(0));
}
