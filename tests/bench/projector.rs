//! The projector beside its two limits: reading the stream, and upserting the same rows.

mod agents;
mod limits;
mod live;
mod users;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use leadpulse_service::config::Config;
use projector::{fold::LeadState, mapping::Mapping};
use sqlx::PgPool;

pub(crate) use limits::read_only;

use crate::{
    report::{milliseconds, per_second, rate, table},
    stage::{CONFIG, Spread, Stage, applied, drop_indexes, make_indexes, publish},
};

/// The agents of the filled tables and of the events.
const AGENTS: i64 = 1000;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Events in the stream
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Leads that they are about
    #[arg(long, default_value_t = 100_000)]
    leads: i64,
    #[arg(long, default_value_t = 2)]
    lanes: u32,
    /// Leads that stand in the table of the run on a full table, and of the live runs
    #[arg(long, default_value_t = 2_000_000)]
    standing: i64,
    /// Seconds of each live measurement
    #[arg(long, default_value_t = 30)]
    live_seconds: u64,
    /// Leads that stand in the table before the run, for how the cost grows
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000, 5_000_000])]
    tables: Vec<i64>,
    /// Only these parts
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// A stream that was filled before
    Throughput,
    /// The same with many leads in the table
    Standing,
    /// Published → visible
    Live,
    /// How the cost grows with the table
    Growth,
    /// What the figures of agents cost
    Agents,
    /// What the users of an org cost
    Users,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

pub(crate) async fn run(options: &Options) {
    let stage = Stage::start();
    let mut filled = Filled { leads: 0 };
    let mut rows = Vec::new();
    if options.wants(Part::Throughput) {
        rows.push(throughput(&stage, &mut filled, options, Spread::Uniform, 0).await);
        rows.push(throughput(&stage, &mut filled, options, Spread::Skewed, 0).await);
    }
    if options.wants(Part::Standing) {
        rows.push(
            throughput(&stage, &mut filled, options, Spread::Uniform, options.standing).await,
        );
    }
    if !rows.is_empty() {
        table(&HEAD, &rows);
    }
    if options.wants(Part::Live) {
        live::live(&stage, &mut filled, options).await;
    }
    if options.wants(Part::Growth) {
        growth(&stage, &mut filled, options).await;
    }
    if options.wants(Part::Agents) {
        agents::agents(&stage).await;
    }
    if options.wants(Part::Users) {
        users::users(&stage).await;
    }
}

pub(crate) fn mapping() -> Arc<Mapping> {
    let config = Config::parse("bench", CONFIG, &|_| None).unwrap();
    Arc::new(Mapping::of(&config))
}

const HEAD: [&str; 11] = [
    "events",
    "(a) read, decode",
    "(b) upserts of 1,000, one connection",
    "(b) as many as lanes",
    "(c) rows",
    "(c) / (b) one",
    "(c) / (b) as many",
    "of the composed limit",
    "(c) events",
    "commit p99",
    "peak memory",
];

async fn throughput(
    stage: &Stage,
    filled: &mut Filled,
    options: &Options,
    spread: Spread,
    standing: i64,
) -> Vec<String> {
    eprintln!("filling the stream with {} events, {spread:?}", options.events);
    stage.new_stream().await;
    let jetstream = stage.jetstream().await;
    publish(&jetstream, 0..options.events, |n| spread.lead(n, options.leads)).await;

    eprintln!("(a) reading and decoding");
    let read = read_only(stage, options.events).await;

    eprintln!("(c) the projector");
    let pool = filled.database(stage, "bench_projector", standing).await;
    let started = Instant::now();
    let projector = stage.projector("bench_projector", options.lanes);
    let last = i64::try_from(options.events).unwrap();
    let already = applied(&pool, 1).await;
    // The start of the process is not its throughput: count from the first commit.
    let first = started.elapsed();
    applied(&pool, last).await;
    let took = started.elapsed() - first;
    let written = projector.metric("projector_rows_written_total").await;
    let commit = quantile(&projector.metrics().await, "projector_commit_seconds", 0.99);
    let peak = projector.peak_mebibytes();
    drop(projector);
    drop(pool);

    let mut upserts = Vec::new();
    for connections in [1, options.lanes] {
        eprintln!("(b) upserts alone, connections: {connections}");
        let pool = filled.database(stage, "bench_upserts", standing).await;
        upserts.push(limits::upserts_only(&pool, options, spread, connections).await);
    }
    let events = usize::try_from(last - already).unwrap();
    let coalesced = options.events as f64 / written;
    let rows = rate(events, took) / coalesced;
    // Both limits are in rows: a row is so many events that must be read.
    let composed = 1.0 / (coalesced / read + 1.0 / upserts[1]);
    let leads = match standing {
        0 => String::new(),
        standing => format!(", {} k in the table", standing / 1000),
    };
    vec![
        format!(
            "{} k over {} k leads, {spread:?}, {coalesced:.2} a row{leads}",
            options.events / 1000,
            options.leads / 1000
        ),
        per_second(read),
        per_second(upserts[0]),
        per_second(upserts[1]),
        per_second(rows),
        format!("{:.2}", rows / upserts[0]),
        format!("{:.2}", rows / upserts[1]),
        format!("{:.2}", rows / composed),
        per_second(rate(events, took)),
        milliseconds(Duration::from_secs_f64(commit)),
        format!("{peak:.0} MiB"),
    ]
}

/// The same 100,000 events on tables of more and more leads, as a table and as a picture.
async fn growth(stage: &Stage, filled: &mut Filled, options: &Options) {
    let mut rows = Vec::new();
    let (mut sizes, mut rates) = (Vec::new(), Vec::new());
    for size in &options.tables {
        eprintln!("a table of {size} leads");
        stage.new_stream().await;
        let pool = filled.database(stage, "bench_growth", *size).await;
        let jetstream = stage.jetstream().await;
        publish(&jetstream, 0..100_000, |n| Spread::Uniform.lead(n, *size)).await;
        let started = Instant::now();
        let projector = stage.projector("bench_growth", options.lanes);
        let already = applied(&pool, 1).await;
        let first = started.elapsed();
        applied(&pool, 100_000).await;
        let events = usize::try_from(100_000 - already).unwrap();
        let events = rate(events, started.elapsed() - first);
        let commit = quantile(&projector.metrics().await, "projector_commit_seconds", 0.99);
        rows.push(vec![
            format!("{} k", size / 1000),
            per_second(events),
            milliseconds(Duration::from_secs_f64(commit)),
        ]);
        sizes.push(format!("\"{} k\"", size / 1000));
        rates.push(format!("{:.1}", events / 1000.0));
    }
    table(&["leads in the table", "events", "commit p99"], &rows);
    println!(
        "\n```mermaid\nxychart-beta\n    title \"Events a second by leads in the table\"\n    \
         x-axis [{}]\n    y-axis \"thousand events a second\" 0 --> 50\n    bar [{}]\n```",
        sizes.join(", "),
        rates.join(", ")
    );
}

/// A new database with so many leads as the projector would have written them, all of them with a state
/// that it can read: they came and were won through 90 days, and leave their windows one by one. The
/// last one filled is kept and copied.
struct Filled {
    leads: i64,
}

impl Filled {
    const NAME: &str = "bench_filled";

    async fn database(&mut self, stage: &Stage, name: &'static str, leads: i64) -> PgPool {
        if leads == 0 {
            return stage.new_database(name).await;
        }
        if self.leads != leads {
            eprintln!("filling a table with {leads} leads");
            self.leads = leads;
            let pool = stage.new_database(Self::NAME).await;
            fill(&pool, leads).await;
            pool.close().await;
        }
        stage.copy_database(name, Self::NAME).await
    }
}

async fn fill(pool: &PgPool, leads: i64) {
    let indexes = drop_indexes(pool).await;
    sqlx::query(
        "insert into lead_fact (org_id, board_id, item_id, name, assigned_user_id, entered_at, entered_source,
             first_touch_at, last_activity_at, state, closed_won_at, closed_by_user_id, lifecycle, last_event_at,
             last_seq, fold_state)
         select 'bench', 9001, n, 'Lead ' || n, 1 + n % $3, at, 'created', at + interval '1 hour', now(),
             case when n % 4 = 2 then 'won' else 'open' end,
             case when n % 4 = 2 then at + interval '2 hours' end,
             case when n % 4 = 2 then 1 + n % $3 end, 'active', now(), 0, $2
         from (select n, now() - n * 7919 % 7776000 * interval '1 second' as at
               from generate_series(0, $1 - 1) as n) as lead",
    )
    .bind(leads)
    .bind(LeadState::default().encode())
    .bind(AGENTS)
    .execute(pool)
    .await
    .unwrap();
    make_indexes(pool, indexes).await;
    sqlx::query("vacuum analyze lead_fact").execute(pool).await.unwrap();
}

/// A quantile from a histogram's buckets, between two of them by proportion.
fn quantile(metrics: &str, name: &str, share: f64) -> f64 {
    let prefix = format!("{name}_bucket{{");
    let mut buckets: Vec<(f64, f64)> = metrics
        .lines()
        .filter(|line| line.starts_with(&prefix))
        .filter_map(|line| {
            let (labels, count) = line.rsplit_once(' ')?;
            let bound = labels.split("le=\"").nth(1)?.split('"').next()?;
            Some((bound.parse().unwrap_or(f64::INFINITY), count.parse().ok()?))
        })
        .collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let wanted = buckets.last().map_or(0.0, |last| last.1) * share;
    let mut below = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= wanted {
            let part = (wanted - below.1) / (count - below.1).max(1.0);
            return below.0 + (bound.min(10.0) - below.0) * part;
        }
        below = (bound, count);
    }
    below.0
}
