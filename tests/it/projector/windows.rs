use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::DateTime;
use leadpulse_service::config::Config;
use projector::{agents::Worker, lane::Progress};
use sqlx::Row;
use tests::{
    harness::{ORG, PATIENCE, Projection, configuration, wait_until},
    naive::{AgentMetrics, World, tables},
};

use super::{history, setup};

/// The worker alone, with a clock that the test turns: from one change by the clock to the next.
#[tokio::test]
async fn agent_metrics_are_exact_while_the_clock_turns() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(40, 600, 20)).await;
    projection.check().await;
    projection.projector.kill9();
    let pool = projection.ground.database.pool.clone();
    let fence: i64 = sqlx::query_scalar("select fence from checkpoint where projection = 'agents'")
        .fetch_one(&pool)
        .await
        .unwrap();
    let config =
        Config::parse("test", &configuration(&projection.ground.rules), &|_| None).unwrap();
    let now = Arc::new(AtomicI64::new(chrono::Utc::now().timestamp_micros()));
    let hand = Arc::clone(&now);
    let clock = move || DateTime::from_timestamp_micros(hand.load(Ordering::SeqCst)).unwrap();
    let progress = Arc::new(Progress::new(&[0]));
    let mut worker =
        Worker::new(pool.clone(), fence, &config.orgs, progress, Arc::new(clock), 1 << 20);
    let world = World::of(&projection.arrivals, &projection.ground.rules);
    let leads = world.all_leads();
    for turn in 0..60 {
        while worker.step().await.unwrap() {}
        let rows =
            sqlx::query("select * from agent_metrics where org_id = $1").bind(ORG).fetch_all(&pool);
        for row in rows.await.unwrap() {
            let at = now.load(Ordering::SeqCst);
            let metrics = tables::metrics(&row);
            let rules = &projection.ground.rules;
            let (agent, days) = (metrics.agent_id, metrics.window_days);
            assert_eq!(metrics, AgentMetrics::of(&leads, rules, agent, days, at), "turn {turn}");
            let valid_until: Option<DateTime<chrono::Utc>> = row.get("valid_until");
            assert!(valid_until.is_none_or(|until| until.timestamp_micros() > at));
        }
        let next: Option<DateTime<chrono::Utc>> =
            sqlx::query_scalar("select min(valid_until) from agent_metrics")
                .fetch_one(&pool)
                .await
                .unwrap();
        let Some(next) = next else { break };
        // To the last instant before the change, then to the change itself.
        let next = next.timestamp_micros();
        let to = if turn % 2 == 0 { next - 1 } else { next };
        now.store(to.max(now.load(Ordering::SeqCst)), Ordering::SeqCst);
    }
}

/// Windows and the hot rule are the configuration's: rows of windows that are gone go, those of new ones come,
/// and the others are what the rule of today makes of them, without an event.
#[tokio::test(flavor = "multi_thread")]
async fn changed_windows_are_those_of_every_agent_after_a_restart() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(30, 500, 44)).await;
    projection.check().await;
    let mut rules = projection.ground.rules.clone();
    rules.windows_days = vec![5, 30, 400];
    rules.hot_min_deals = 1;
    projection.ground.reconfigure(rules);
    projection.projector.kill_and_restart();
    let pool = projection.ground.database.pool.clone();
    wait_until("the new windows are computed", PATIENCE, async || {
        let sql = "select exists (select from agent_metrics where window_days = 400)
                   and not exists (select from agent_metrics where window_days in (7, 90))
                   and not exists (select from agent_dirty)";
        sqlx::query_scalar::<_, bool>(sql).fetch_one(&pool).await.unwrap()
    })
    .await;
    projection.check().await;
}
