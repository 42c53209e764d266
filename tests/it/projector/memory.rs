//! What the worker remembers of agents' leads, against leads that change under it.

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::DateTime;
use leadpulse_service::config::Config;
use projector::{
    agents::Worker,
    lane::{CACHED_LEADS, Delivery, Item, Lane, LaneSettings, Progress},
    mapping::Mapping,
    store::WriteError,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use sqlx::{PgPool, Row as _, postgres::PgPoolOptions};
use tests::{
    generate::{AGENTS, arrivals},
    harness::{ORG, PATIENCE, Projection, configuration, envelope, wait_until},
    naive::{Arrival, Event, World},
};
use tokio::sync::mpsc;

use super::{history, long, setup};

const HOUR: i64 = 3_600_000_000;
/// Events that come at once to a lane at most.
const LARGEST: usize = 5000;

/// The lanes and the worker of a projector, moved by the test, on the tables of one that has ended.
struct Stage {
    projection: Projection,
    pool: PgPool,
    config: Config,
    fence: i64,
    position: u64,
    now: Arc<AtomicI64>,
}

impl Stage {
    async fn new() -> Self {
        let mut projection = Projection::start(setup(&[])).await;
        projection.settle().await;
        projection.projector.kill9();
        let pool = projection.ground.database.pool.clone();
        let fence = "select max(fence) from checkpoint";
        let fence = sqlx::query_scalar(fence).fetch_one(&pool).await.unwrap();
        let text = configuration(&projection.ground.rules);
        let config = Config::parse("test", &text, &|_| None).unwrap();
        let now = Arc::new(AtomicI64::new(chrono::Utc::now().timestamp_micros()));
        Self { projection, pool, config, fence, position: 0, now }
    }

    fn worker(&self, memory: usize) -> Worker {
        let hand = Arc::clone(&self.now);
        let clock = move || DateTime::from_timestamp_micros(hand.load(Ordering::SeqCst)).unwrap();
        let progress = Arc::new(Progress::new(&[0]));
        let orgs = &self.config.orgs;
        Worker::new(self.pool.clone(), self.fence, orgs, progress, Arc::new(clock), memory)
    }

    /// Commits these events as a lane does.
    async fn apply(&mut self, events: &[Arrival]) {
        self.apply_in_batches(events, LARGEST, CACHED_LEADS).await;
    }

    /// By one lane, each batch after the one before.
    async fn apply_in_batches(
        &mut self,
        events: &[Arrival],
        most: usize,
        cached_leads: NonZeroUsize,
    ) {
        let settings = LaneSettings {
            number: 0,
            fence: self.fence,
            position: self.position,
            mapping: Arc::new(Mapping::of(&self.config)),
            parked_leads_limit: 10,
            cached_leads,
        };
        let progress = Arc::new(Progress::new(&[self.position]));
        let lane = Lane::open(settings, self.pool.clone(), Arc::clone(&progress)).await.unwrap();
        let (sender, receiver) = mpsc::channel(most);
        let lane = tokio::spawn(lane.run(receiver));
        for batch in events.chunks(most) {
            for arrival in batch {
                let delivery = Delivery {
                    seq: arrival.seq,
                    trace_id: None,
                    payload: Bytes::new(),
                    envelope: Ok(envelope(arrival)),
                };
                sender.send(Item::Event(Box::new(delivery), None)).await.unwrap();
                self.position = arrival.seq;
            }
            let position = self.position;
            wait_until("the batch is committed", PATIENCE, async || {
                progress.applied() == position || lane.is_finished()
            })
            .await;
        }
        drop(sender);
        lane.await.unwrap().unwrap();
    }

    async fn mark_whole(&self, agent: i64) {
        sqlx::query("insert into agent_dirty (org_id, agent_id, seq) values ($1, $2, 0)")
            .bind(ORG)
            .bind(agent)
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// A while, or to the next change by the clock.
    async fn turn(&self, random: &mut StdRng) {
        let next: Option<DateTime<chrono::Utc>> =
            sqlx::query_scalar("select min(valid_until) from agent_metrics")
                .fetch_one(&self.pool)
                .await
                .unwrap();
        let now = self.now.load(Ordering::SeqCst);
        let to = match next {
            Some(next) if random.random() => next.timestamp_micros(),
            _ => now + random.random_range(0..50 * HOUR),
        };
        self.now.store(to.max(now), Ordering::SeqCst);
    }
}

/// The first arrival of each event, as the stream would hold them.
fn stream(deliveries: &[String]) -> Vec<Arrival> {
    let mut known = BTreeSet::new();
    let mut kept = arrivals(deliveries, chrono::Utc::now().timestamp_micros());
    kept.retain(|arrival| known.insert(Event::read(arrival).id));
    kept
}

/// What a batch needs is not what is remembered: a lane that remembers one lead writes what one writes that
/// remembers all.
#[tokio::test]
async fn rows_do_not_depend_on_how_many_leads_a_lane_remembers() {
    for round in 0..long(24, 4) {
        let cached = NonZeroUsize::new([1, 3, 10, 25][round % 4]).unwrap();
        let seed = u64::try_from(round).unwrap() + 40;
        let most = StdRng::seed_from_u64(seed).random_range(1..60);
        let mut stage = Stage::new().await;
        let events = stream(&history(50, 600, seed));
        stage.apply_in_batches(&events, most, cached).await;
        let world = World::of(&events, &stage.projection.ground.rules);
        assert_eq!(
            stage.projection.leads().await,
            world.leads,
            "{cached} leads, batches of {most}"
        );
    }
}

/// Leads that are reassigned, won, reopened, deleted and restored between steps; marks of leads and of whole
/// agents; steps that are cut off anywhere; a clock that turns; and memory for nothing, for an agent or
/// two, or for all.
#[tokio::test]
async fn what_is_remembered_of_agents_is_what_the_table_says() {
    for round in 0..long(40, 5) {
        let memory = [0, 3_000, 8_000, 30_000, 1 << 20][round % 5];
        let seed = u64::try_from(round).unwrap() + 70;
        let mut random = StdRng::seed_from_u64(seed);
        let mut stage = Stage::new().await;
        let mut worker = stage.worker(memory);
        let events = stream(&history(40, 500, seed));
        let mut told = 0;
        while told < events.len() {
            let part = &events[told..(told + random.random_range(1..40)).min(events.len())];
            stage.apply(part).await;
            told += part.len();
            if random.random_ratio(1, 4) {
                stage.mark_whole(AGENTS[random.random_range(0..AGENTS.len())]).await;
            }
            match random.random_range(0..4) {
                0 => continue,
                1 => {
                    let span = Duration::from_micros(random.random_range(0..20_000));
                    _ = tokio::time::timeout(span, worker.step()).await;
                    continue;
                }
                2 => stage.turn(&mut random).await,
                _ => {}
            }
            while worker.step().await.unwrap() {}
            let world = World::of(&events[..told], &stage.projection.ground.rules);
            stage.projection.check_agents(&world).await;
        }
    }
}

/// What asks on the same connection next, asks outside of any transaction, and the next step has one of its own.
#[tokio::test]
async fn a_step_that_is_cut_off_leaves_its_connection_in_no_transaction() {
    let stage = Stage::new().await;
    // Each connection is the next one's, too.
    let pool =
        PgPoolOptions::new().max_connections(1).connect(stage.projection.ground.database.url());
    let pool = pool.await.unwrap();
    let stage = Stage { pool, ..stage };
    let mut worker = stage.worker(1 << 20);
    for round in 0..200 {
        stage.mark_whole(AGENTS[0]).await;
        let span = Duration::from_micros(round * 20);
        _ = tokio::time::timeout(span, worker.step()).await;
        // A transaction has its time from its first statement.
        let begun = sqlx::raw_sql("select now() < statement_timestamp()");
        let begun: bool = begun.fetch_one(&stage.pool).await.unwrap().get(0);
        assert!(!begun, "cut off after {span:?}");
        worker.step().await.unwrap();
    }
}

/// As after a start, when all agents are marked.
#[tokio::test]
async fn a_changed_lead_does_not_wait_for_agents_that_are_read_whole() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker(1 << 20);
    let agents = "insert into agent_dirty (org_id, agent_id, seq)
        select $1, agent, 9223372036854775807
        from unnest(array(select generate_series(1, 1000)) || $2::bigint[]) as agent";
    sqlx::query(agents).bind(ORG).bind(AGENTS).execute(&stage.pool).await.unwrap();
    let events = stream(&history(20, 100, 91));
    stage.apply(&events).await;
    let marks = async |of: &str| -> i64 {
        let count = format!("select count(*) from agent_dirty where {of}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&stage.pool).await.unwrap()
    };
    assert!(marks("board_id is not null").await > 0);
    assert!(worker.step().await.unwrap());
    assert_eq!(marks("board_id is not null").await, 0);
    assert!(marks("board_id is null").await >= 800);
    // Whom a lead's mark made it read whole, it does not read again.
    let touched = "(org_id, agent_id) in (select org_id, agent_id from agent_metrics)";
    assert_eq!(marks(touched).await, 0);
    let world = World::of(&events, &stage.projection.ground.rules);
    stage.projection.check_agents(&world).await;
    while worker.step().await.unwrap() {}
    assert_eq!(marks("true").await, 0);
    stage.projection.check_agents(&world).await;
}

/// What a swap does to a worker that knows nothing of it: it has lost the fence, and what it remembered is of
/// another table.
#[tokio::test]
async fn a_worker_of_before_a_swap_writes_nothing_and_one_on_another_table_remembers_nothing() {
    let mut stage = Stage::new().await;
    let mut worker = stage.worker(1 << 20);
    let events = stream(&history(40, 300, 90));
    stage.apply(&events).await;
    while worker.step().await.unwrap() {}
    // Another table under the name, with other leads, and a mark about none of them.
    sqlx::raw_sql(
        "create schema aside;
         create table other (like lead_fact including all excluding generated);
         insert into other select * from lead_fact where item_id % 2 = 0;
         alter table lead_fact set schema aside;
         alter table other rename to lead_fact;
         insert into agent_dirty (org_id, agent_id, board_id, item_id, seq)
         select distinct org_id, agent_id, 0, 0, 0 from agent_metrics",
    )
    .execute(&stage.pool)
    .await
    .unwrap();
    while worker.step().await.unwrap() {}
    let counted: (i64, i64) = sqlx::query_as(
        "select (select sum(active_leads)::bigint from agent_metrics where window_days = 7),
             (select count(*) from lead_fact where assigned_user_id is not null and state = 'open'
              and lifecycle = 'active')",
    )
    .fetch_one(&stage.pool)
    .await
    .unwrap();
    assert_eq!(counted.0, counted.1);
    assert!(counted.0 > 0);
    sqlx::query("update checkpoint set fence = fence + 1").execute(&stage.pool).await.unwrap();
    stage.mark_whole(AGENTS[0]).await;
    assert!(matches!(worker.step().await, Err(WriteError::FenceLost)));
}
