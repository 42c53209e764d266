//! What the figures of agents cost.

use std::{sync::Arc, time::Instant};

use leadpulse_service::config::Config;

use crate::{
    report::{milliseconds, percentile, table},
    stage::{CONFIG, Stage},
};

/// One agent with 450 and with 9,000 leads of 90 days; 1,000 dirty agents; 1, 10 and 100 agents a batch;
/// read whole, and remembered but for one lead.
pub(super) async fn agents(stage: &Stage) {
    let pool = stage.new_database("bench_agents").await;
    let mut config = Config::parse("bench", CONFIG, &|_| None).unwrap();
    config.orgs.truncate(1);
    sqlx::query(
        "insert into checkpoint (projection, lane, stream, stream_created_at, seq, fence)
         values ('agents', 0, 's', now(), 0, 1)",
    )
    .execute(&pool)
    .await
    .unwrap();
    // Agents 1 to 1,000 with 450 leads each; agent 5,000 with 9,000.
    sqlx::query(
        "insert into lead_fact (org_id, board_id, item_id, assigned_user_id, entered_at, entered_source,
             first_touch_at, last_activity_at, state, deal_amount, industry, closed_won_at, closed_by_user_id,
             lifecycle, last_event_at, last_seq, fold_state)
         select 'bench', 9001, n, agent, at, 'created', at + interval '1 hour', at, case when n % 4 = 2 then 'won' else 'open' end,
             100, 'industry ' || n % 8, case when n % 4 = 2 then at + interval '2 days' end,
             case when n % 4 = 2 then agent end, 'active', at, 0, ''
         from (select n, case when n < 450000 then 1 + n % 1000 else 5000 end as agent,
                   now() - n % 2160 * interval '1 hour' as at from generate_series(0, 458999) as n) as lead",
    )
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query("vacuum analyze lead_fact").execute(&pool).await.unwrap();
    let progress = Arc::new(projector::lane::Progress::new(&[0]));
    let mut worker = projector::agents::Worker::new(
        pool.clone(),
        1,
        &config.orgs,
        progress,
        Arc::new(chrono::Utc::now),
        256 << 20,
    );
    let mut rows = Vec::new();
    let cases: [(&str, &str, u32, usize); 5] = [
        (
            "one agent, 450 leads in 90 days",
            "select 1 + n % 1000 from generate_series(1, 1) n",
            1,
            50,
        ),
        ("one agent, 9,000 leads in 90 days", "select 5000", 1, 50),
        ("10 agents of 450", "select generate_series(1, 10)", 10, 20),
        ("100 agents of 450", "select generate_series(1, 100)", 100, 10),
        ("1,000 agents of 450", "select generate_series(1, 1000)", 1000, 3),
    ];
    // Item n - 1 is a lead of agent n.
    // Agents that are read whole come in portions of 100, each of one step.
    for (what, lead, portion) in
        [("read whole", "null, null", 100), ("one lead changed", "9001, agent - 1", 1000)]
    {
        for (name, agents, count, times) in cases {
            let mut took = Vec::new();
            for _ in 0..times {
                let mark = format!(
                    "insert into agent_dirty (org_id, agent_id, board_id, item_id, seq)
                     select 'bench', agent, {lead}, 0 from ({agents}) as a (agent)"
                );
                sqlx::query(sqlx::AssertSqlSafe(mark)).execute(&pool).await.unwrap();
                let started = Instant::now();
                for _ in 0..count.div_ceil(portion) {
                    assert!(worker.step().await.unwrap());
                }
                took.push(started.elapsed());
                let left: i64 = sqlx::query_scalar("select count(*) from agent_dirty")
                    .fetch_one(&pool)
                    .await
                    .unwrap();
                assert_eq!(left, 0, "not all agents were computed");
            }
            let median = percentile(&mut took, 0.5);
            let name = format!("{name}, {what}");
            rows.push(vec![name, milliseconds(median), milliseconds(median / count)]);
        }
    }
    table(&["recomputed", "median", "an agent"], &rows);
}
