//! The figures that an operator's graphs are made of, over the real binary.

use sqlx::PgPool;
use tests::harness::{PATIENCE, Projection, wait_until};

use super::{
    history,
    poison::{POISON, execute, named, poison},
    setup,
};

/// What the projector tells on `/metrics`; none of what it has not told yet.
async fn figure(projection: &Projection, name: &str) -> Option<f64> {
    let text = projection.projector.page("/metrics").await.body;
    let mut found = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.next().map(|value| value.parse().unwrap())
}

async fn becomes(projection: &Projection, name: &str, wanted: f64) {
    wait_until(&format!("{name} is {wanted}"), PATIENCE, async || {
        figure(projection, name).await == Some(wanted)
    })
    .await;
}

async fn rises_above(projection: &Projection, name: &str, least: f64) {
    wait_until(&format!("{name} is above {least}"), PATIENCE, async || {
        figure(projection, name).await.is_some_and(|value| value > least)
    })
    .await;
}

#[expect(clippy::cast_precision_loss, reason = "small sequences")]
fn float(number: u64) -> f64 {
    number as f64
}

/// A histogram with its buckets: how many samples, and their sum.
async fn histogram(projection: &Projection, name: &str) -> (f64, f64) {
    let count = figure(projection, &format!("{name}_count")).await.unwrap();
    let sum = figure(projection, &format!("{name}_sum")).await.unwrap();
    let all = figure(projection, &format!("{name}_bucket{{le=\"+Inf\"}}")).await;
    assert_eq!(all, Some(count), "{name} has buckets");
    (count, sum)
}

#[tokio::test]
async fn lag_batches_and_commits_are_what_was_done() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(20, 400, 41)).await;
    projection.check().await;
    let last = float(projection.last_seq());
    becomes(&projection, "projector_applied_seq", last).await;
    becomes(&projection, "projector_head_seq", last).await;
    becomes(&projection, "projector_lag_events", 0.0).await;
    becomes(&projection, "projector_lag_seconds", 0.0).await;
    becomes(&projection, "projector_events_total", last).await;
    let (batches, events) = histogram(&projection, "projector_batch_events_size").await;
    assert_eq!(events, last, "each event was in one batch");
    let (commits, seconds) = histogram(&projection, "projector_commit_seconds").await;
    assert_eq!(commits, batches);
    assert!(seconds > 0.0 && seconds / commits < 10.0, "{seconds} s for {commits} commits");

    // Many events of one lead in one batch are one row.
    projection.projector.kill9();
    projection
        .publish(&(0..300).map(|n| named(7, &format!("name {n}"), n)).collect::<Vec<_>>())
        .await;
    projection.projector.restart().unwrap();
    projection.check().await;
    becomes(&projection, "projector_events_total", 300.0).await;
    let rows = figure(&projection, "projector_rows_written_total").await.unwrap();
    assert!((1.0..100.0).contains(&rows), "{rows} rows for 300 events of one lead");

    // The reader takes nothing; the stream and the position tell the lag all the same.
    projection.projector.kill9();
    projection.projector.set("FAILPOINTS", "reader-silent=return");
    projection.projector.restart().unwrap();
    becomes(&projection, "projector_lag_events", 0.0).await;
    let applied = float(projection.last_seq());
    projection.publish(&history(20, 25, 42)).await;
    becomes(&projection, "projector_lag_events", float(projection.last_seq()) - applied).await;
    rises_above(&projection, "projector_lag_seconds", 1.0).await;
    assert_eq!(figure(&projection, "projector_applied_seq").await, Some(applied));
    projection.projector.set("FAILPOINTS", "");
    projection.projector.kill_and_restart();
    projection.check().await;
    becomes(&projection, "projector_lag_events", 0.0).await;
}

async fn run(pool: &PgPool, sql: &'static str) {
    sqlx::raw_sql(sql).execute(pool).await.unwrap();
}

#[tokio::test]
async fn parked_leads_waiting_agents_and_lost_fences_are_counted() {
    // The attempt that waits for the lock below must not end.
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(20, 300, 43)).await;
    projection.check().await;
    let pool = projection.ground.database.pool.clone();
    for name in ["projector_parked_leads", "projector_dirty_agents", "projector_expired_rows"] {
        becomes(&projection, name, 0.0).await;
    }
    wait_until("the lease is renewed", PATIENCE, async || {
        let left = figure(&projection, "projector_lease_left_seconds").await;
        left.is_some_and(|left| left > 0.0 && left <= 3.0)
    })
    .await;

    execute(&projection, POISON).await;
    let events = [poison(5001, 1), named(5001, "later", 2), poison(5002, 1)];
    projection.publish(&events).await;
    projection.settle().await;
    becomes(&projection, "projector_parked_leads", 2.0).await;
    assert_eq!(figure(&projection, "projector_parked_leads_total").await, Some(2.0));

    // While the worker waits for its fence's row, marks and overtaken rows stay.
    let mut held = pool.begin().await.unwrap();
    sqlx::query("select from checkpoint where projection = 'agents' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let rows: i64 = sqlx::query_scalar("select count(*) from agent_metrics where org_id = 'demo'")
        .fetch_one(&pool)
        .await
        .unwrap();
    run(
        &pool,
        "update agent_metrics set valid_until = now() - interval '1 hour';
         insert into agent_dirty (org_id, agent_id, seq, marked_at)
         select 'demo', -agent, 0, now() - interval '1 minute' from generate_series(1, 3) as agent",
    )
    .await;
    becomes(&projection, "projector_expired_rows", float(rows.try_into().unwrap())).await;
    becomes(&projection, "projector_dirty_agents", 3.0).await;
    rises_above(&projection, "projector_oldest_mark_seconds", 59.0).await;
    held.rollback().await.unwrap();
    for name in
        ["projector_expired_rows", "projector_dirty_agents", "projector_oldest_mark_seconds"]
    {
        becomes(&projection, name, 0.0).await;
    }

    assert_eq!(figure(&projection, "projector_fence_losses_total").await, None);
    run(&pool, "update checkpoint set fence = fence + 1").await;
    projection.publish(&[named(7, "fenced", 3)]).await;
    becomes(&projection, "projector_fence_losses_total", 1.0).await;
    projection.settle().await;
    becomes(&projection, "projector_lag_events", 0.0).await;
}
