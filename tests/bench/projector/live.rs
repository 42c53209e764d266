//! How long after its publish an event is visible, in LeadFact and in the figures of its agent.

use std::time::{Duration, Instant};

use sqlx::PgPool;
use tests::harness::wait_until;
use tokio::time::{MissedTickBehavior, interval};

use super::{AGENTS, Filled, Options};
use crate::{
    report::{milliseconds, percentile, table},
    stage::{Spread, Stage, applied, publish},
};

/// Published at once, so many times a second.
const GROUPS: u32 = 100;
/// No event and no recomputation takes so long.
const STALLED: Duration = Duration::from_secs(120);

pub(super) async fn live(stage: &Stage, filled: &mut Filled, options: &Options) {
    let mut rows = Vec::new();
    let full = options.standing;
    for (standing, rate) in [(0, 2000), (full, 100), (full, 500), (full, 2000)] {
        rows.push(at_rate(stage, filled, options, standing, rate).await);
    }
    println!("\npublished → visible by SQL, {AGENTS} agents, {} s each", options.live_seconds);
    table(
        &[
            "leads in the table",
            "events a second",
            "lead: p50",
            "p99",
            "max",
            "then its agents: p50",
            "p99",
            "max",
            "figures overdue by the clock: p99",
            "max",
        ],
        &rows,
    );
}

async fn at_rate(
    stage: &Stage,
    filled: &mut Filled,
    options: &Options,
    standing: i64,
    rate: u64,
) -> Vec<String> {
    stage.new_stream().await;
    let pool = filled.database(stage, "bench_live", standing).await;
    let _projector = stage.projector("bench_live", options.lanes);
    applied(&pool, 0).await;
    compute_all_agents(&pool).await;
    eprintln!("live at {rate} events a second, {standing} leads in the table");
    let jetstream = stage.jetstream().await;
    let leads = standing.max(options.leads);
    let groups = options.live_seconds * u64::from(GROUPS);
    let group = rate / u64::from(GROUPS);
    let publishing = tokio::spawn(async move {
        let mut published = Vec::new();
        let mut pace = interval(Duration::from_secs(1) / GROUPS);
        for n in 0..groups {
            pace.tick().await;
            let numbers = n * group..(n + 1) * group;
            let last = i64::try_from(numbers.end).unwrap();
            publish(&jetstream, numbers, |n| Spread::Uniform.lead(n, leads)).await;
            published.push((last, Instant::now()));
        }
        published
    });
    let looks = look_until(&pool, i64::try_from(groups * group).unwrap()).await;
    let (mut lead, mut agents) = (Vec::new(), Vec::new());
    for (seq, at) in publishing.await.unwrap() {
        let seen = looks.partition_point(|look| look.leads < seq);
        let counted = looks.partition_point(|look| look.agents < seq);
        lead.push(looks[seen].at.saturating_duration_since(at));
        agents.push(looks[counted].at - looks[seen].at);
    }
    let mut overdue: Vec<Duration> = looks.iter().map(|look| look.overdue).collect();
    let mut row = vec![format!("{} k", standing / 1000), rate.to_string()];
    for (samples, shares) in [
        (&mut lead, &[0.5, 0.99, 1.0][..]),
        (&mut agents, &[0.5, 0.99, 1.0]),
        (&mut overdue, &[0.99, 1.0]),
    ] {
        row.extend(shares.iter().map(|share| milliseconds(percentile(samples, *share))));
    }
    row
}

/// What could be read at an instant.
struct Look {
    at: Instant,
    /// LeadFact has everything up to here, …
    leads: i64,
    /// … and AgentMetrics up to here.
    agents: i64,
    /// The clock has overtaken a row of AgentMetrics by so much.
    overdue: Duration,
}

async fn look_until(pool: &PgPool, last: i64) -> Vec<Look> {
    // What lies between two looks is counted as the projector's: so they are many.
    let mut pace = interval(Duration::from_millis(5));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut looks = Vec::new();
    loop {
        pace.tick().await;
        let (leads, waiting, overdue): (Option<i64>, Option<i64>, f64) = sqlx::query_as(
            "select (select min(seq) from checkpoint where projection = 'main'),
                 (select min(seq) from agent_dirty),
                 (select coalesce(extract(epoch from now() - min(valid_until)), 0)::float8
                  from agent_metrics where valid_until <= now())",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        let leads = leads.unwrap_or(0);
        let agents = waiting.map_or(leads, |seq| leads.min(seq - 1));
        let overdue = Duration::from_secs_f64(overdue.max(0.0));
        looks.push(Look { at: Instant::now(), leads, agents, overdue });
        if agents >= last {
            break looks;
        }
        assert!(started.elapsed() < STALLED, "AgentMetrics stand at {agents}, LeadFact at {leads}");
    }
}

/// The leads of a filled table have agents that no event has told of.
async fn compute_all_agents(pool: &PgPool) {
    sqlx::query(
        "insert into agent_dirty (org_id, agent_id, seq)
         select distinct org_id, assigned_user_id, 0 from lead_fact where assigned_user_id is not null",
    )
    .execute(pool)
    .await
    .unwrap();
    // A step for all of them takes so long that the clock overtakes some of them in the meantime.
    wait_until("all agents are computed", STALLED, async || {
        let waiting: i64 = sqlx::query_scalar(
            "select (select count(*) from agent_dirty)
                 + (select count(*) from agent_metrics where valid_until <= now())",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        waiting == 0
    })
    .await;
}
