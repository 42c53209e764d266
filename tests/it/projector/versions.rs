//! Binaries and schemas of different versions beside each other; and what the versions of read models tell.

use std::time::Duration;

use tests::harness::{ORG, PATIENCE, Projection, wait_until};

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
    // The last migrations take themselves back.
    execute(
        &projection,
        "drop table projection_fault; alter table org_version drop column of_metrics;
         delete from _sqlx_migrations where version >= 20261125191000",
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

/// Under a version that came again, a cache would have answers of data that are no more.
#[tokio::test]
async fn after_a_restore_from_an_older_copy_no_version_comes_again() {
    let mut projection = Projection::start(setup(&[])).await;
    let pool = projection.ground.database.pool.clone();
    let version = async || -> i64 {
        let sql = "select coalesce(max(version), 0) from org_version where org_id = $1";
        sqlx::query_scalar(sql).bind(ORG).fetch_one(&pool).await.unwrap()
    };
    let mut versions = vec![0];
    for seed in 57..61 {
        projection.publish(&history(10, 20, seed)).await;
        projection.check().await;
        let last = *versions.last().unwrap();
        wait_until("the change is told", PATIENCE, async || version().await > last).await;
        // Whatever else is to be told of it is told.
        tokio::time::sleep(Duration::from_millis(500)).await;
        versions.push(version().await);
    }
    let restored = "update org_version set version = $1, of_metrics = 0";
    sqlx::query(restored).bind(versions[1]).execute(&pool).await.unwrap();
    projection.publish(&history(10, 20, 61)).await;
    projection.check().await;
    wait_until("the change is told", PATIENCE, async || version().await != versions[1]).await;
    assert!(version().await > versions[4], "{versions:?}");
}

/// What dashboards of leads need not hear of: AgentMetrics that are computed anew.
#[tokio::test]
async fn a_version_for_agent_metrics_alone_is_counted_as_such() {
    let mut projection = Projection::start(setup(&[])).await;
    let pool = projection.ground.database.pool.clone();
    let counted = async || -> (i64, i64) {
        let known = "select version - of_metrics, of_metrics from org_version where org_id = $1";
        sqlx::query_as(known).bind(ORG).fetch_one(&pool).await.unwrap()
    };
    projection.publish(&history(10, 100, 55)).await;
    projection.check().await;
    let of_leads = async || counted().await.0;
    // Until the last of them is raised, a moment after the commit.
    let (mut before, mut after) = (0, of_leads().await);
    while before != after {
        tokio::time::sleep(Duration::from_millis(500)).await;
        (before, after) = (after, of_leads().await);
    }
    let (of_leads, of_metrics) = counted().await;
    assert!(of_leads > 0);
    sqlx::query("insert into agent_dirty (org_id, agent_id, seq) select org_id, agent_id, 1 from agent_metrics limit 1")
        .execute(&pool)
        .await
        .unwrap();
    wait_until("the metrics are computed anew and told", PATIENCE, async || {
        counted().await.1 > of_metrics
    })
    .await;
    assert_eq!(counted().await.0, of_leads);
    projection.publish(&history(10, 100, 56)).await;
    projection.check().await;
    wait_until("the leads are told", PATIENCE, async || counted().await.0 > of_leads).await;
}
