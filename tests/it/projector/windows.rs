use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use chrono::DateTime;
use leadpulse_service::config::Config;
use projector::{agents::Worker, lane::Progress};
use sqlx::Row;
use tests::{
    harness::{ORG, Projection, configuration},
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
