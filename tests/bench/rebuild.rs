//! A rebuild beside its two limits: reading the stream, and writing the finished rows with their indexes;
//! and what dashboards notice of it.

mod reads;

use std::{
    collections::HashMap,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use leadpulse_nats::streams;
use projector::{
    event::{LeadKey, Meaning, decode},
    fold::{LeadRow, LeadState},
    reader, store,
};
use serde_json::Value;
use sqlx::{Executor, PgPool};
use tests::harness::wait_until;

use crate::{
    projector::{mapping, read_only},
    query::load::Figures,
    report::{PEAK, memory_mib, milliseconds, per_second, percentile, rate, table},
    stage::{ORG, Spread, Stage, delays, event, publish, visible},
};
use reads::Dashboards;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Events in the stream; `--events 10000000 --leads 1000000` is the long one
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Leads that they are about
    #[arg(long, default_value_t = 100_000)]
    leads: i64,
    /// What the fold may hold in memory: `projector.rebuild_memory_mib`, each its own rebuild
    #[arg(long, value_delimiter = ',', default_values_t = [512, 64])]
    memory_mib: Vec<u32>,
    /// Events a second that are published and projected meanwhile
    #[arg(long, default_value_t = 200)]
    live: u64,
    /// Reads a second that nobody has asked for before, beside one more rebuild; 0 leaves it out
    #[arg(long, default_value_t = 60.0)]
    reads: f64,
    /// Seconds of reads before the rebuild
    #[arg(long, default_value_t = 15)]
    idle_seconds: u64,
}

const DATABASE: &str = "bench_rebuild";
/// The finished tables, which each rebuild finds as its live ones.
const FILLED: &str = "bench_copy";

pub(crate) async fn run(options: &Options) {
    let stage = Stage::start();
    eprintln!("filling the stream with {} events", options.events);
    stage.new_stream().await;
    let jetstream = stage.jetstream().await;
    publish(&jetstream, 0..options.events, |n| Spread::Uniform.lead(n, options.leads)).await;
    eprintln!("(a) reading and decoding");
    let read = read_only(&stage, options.events).await;
    eprintln!("(b) COPY and indexes");
    let written = copy_only(&stage, options).await;
    let limit = 1.0 / (1.0 / read + written.as_secs_f64() / options.events as f64);
    let mut rows = Vec::new();
    for memory in &options.memory_mib {
        eprintln!("(c) rebuild within {memory} MiB");
        let run = rebuild(&stage, options, *memory, false).await;
        let done = rate(options.events as usize, run.took);
        rows.push(vec![
            format!("{memory} MiB"),
            per_second(read),
            format!("{:.1} s", written.as_secs_f64()),
            per_second(limit),
            per_second(done),
            format!("{:.2}", done / limit),
            run.passes.to_string(),
            format!("{:.0} MiB", run.estimate_mib),
            format!("{:.0} MiB", run.resident_mib),
            format!("{:.1} ms, try {}", run.lock_ms, run.tries),
            format!("{} / {}", milliseconds(run.lag_p50), milliseconds(run.lag_p99)),
        ]);
    }
    println!("\n{} k events over {} k leads", options.events / 1000, options.leads / 1000);
    table(
        &[
            "memory",
            "(a) read, decode",
            "(b) COPY, indexes",
            "composed limit",
            "(c) rebuild",
            "(c) / limit",
            "passes",
            "leads in memory",
            "resident",
            "swap's lock",
            "published → visible p50 / p99",
        ],
        &rows,
    );
    if let Some(memory) = options.memory_mib.first().filter(|_| options.reads > 0.0) {
        eprintln!("what readers notice");
        let run = rebuild(&stage, options, *memory, true).await;
        print_reads(options, run);
    }
}

fn print_reads(options: &Options, run: Run) {
    let Some(Noticed { mut idle, mut beside, mut swapping }) = run.noticed else { return };
    println!(
        "\n{} reads a second that Postgres answers, beside {} events a second and a rebuild of {}",
        options.reads,
        options.live,
        per_second(rate(options.events as usize, run.took))
    );
    let share = beside.at(0.99) / idle.at(0.99);
    table(
        &[
            "idle p50 / p99",
            "beside the rebuild p50 / p99",
            "p99's share",
            "slowest beside the swap",
            "reads",
        ],
        &[vec![
            idle.spread(),
            beside.spread(),
            format!("{share:.2}"),
            format!("{:.1} ms of {}", swapping.at(1.0), swapping.times.len()),
            format!("{} and {}", idle.times.len(), beside.times.len()),
        ]],
    );
}

/// (b): the finished rows into a table without indexes, and then its indexes.
async fn copy_only(stage: &Stage, options: &Options) -> Duration {
    let pool = stage.new_database(FILLED).await;
    let leads = folded(options);
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "select indexrelid::regclass::text, pg_get_indexdef(indexrelid) from pg_index
         where indrelid = 'lead_fact'::regclass",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    pool.execute("alter table lead_fact drop constraint lead_fact_pkey").await.unwrap();
    for (name, _) in indexes.iter().filter(|(name, _)| name != "lead_fact_pkey") {
        pool.execute(sqlx::AssertSqlSafe(format!("drop index {name}"))).await.unwrap();
    }
    let mut connection = pool.acquire().await.unwrap();
    connection.execute("set maintenance_work_mem = '256MB'").await.unwrap();
    let started = Instant::now();
    let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
    let rows: Vec<_> =
        leads.iter().map(|(key, row, state)| (key, row.clone(), state.clone())).collect();
    for rows in rows.chunks(20_000) {
        store::copy_leads(&mut tx, rows).await.unwrap();
    }
    tx.commit().await.unwrap();
    for (_, definition) in &indexes {
        connection.execute(sqlx::AssertSqlSafe(definition.clone())).await.unwrap();
    }
    let took = started.elapsed();
    let key = "alter table lead_fact add primary key using index lead_fact_pkey";
    connection.execute(key).await.unwrap();
    connection.execute("vacuum (analyze) lead_fact").await.unwrap();
    drop(connection);
    // Nobody may be connected to what is copied.
    pool.close().await;
    took
}

/// The leads of the stream, folded in memory, in no order.
fn folded(options: &Options) -> Vec<(LeadKey, LeadRow, Vec<u8>)> {
    let mapping = mapping();
    let mut states = HashMap::<LeadKey, LeadState>::new();
    for n in 0..options.events {
        let envelope = event(Spread::Uniform.lead(n, options.leads), n);
        if let Meaning::Lead(event) = decode(&envelope, n + 1, None, &mapping) {
            states.entry(event.key.clone()).or_default().apply(&event);
        }
    }
    let board = mapping.board(ORG, 9001).unwrap();
    let row = |(key, state): (LeadKey, LeadState)| Some((key, state.row(board)?, state.encode()));
    states.into_iter().filter_map(row).collect()
}

struct Run {
    took: Duration,
    passes: u64,
    estimate_mib: f64,
    resident_mib: f64,
    lock_ms: f64,
    tries: u64,
    lag_p50: Duration,
    lag_p99: Duration,
    noticed: Option<Noticed>,
}

/// What readers notice: before, during, and while the tables are swapped.
struct Noticed {
    idle: Figures,
    beside: Figures,
    swapping: Figures,
}

/// (c): the release binary, beside a live projector that has work.
async fn rebuild(stage: &Stage, options: &Options, memory: u32, read: bool) -> Run {
    let pool = stage.copy_database(DATABASE, FILLED).await;
    let stream = reader::find(&stage.jetstream().await).await.unwrap();
    let seen = reader::look(&stream).await.unwrap();
    // As if the live projection had everything: it is the rebuild that is measured.
    sqlx::query(
        "insert into checkpoint (projection, lane, stream, stream_created_at, seq, fence)
         values ('main', 0, $1, $2, $3, 0)",
    )
    .bind(streams::EVENTS)
    .bind(seen.identity.created_at)
    .bind(i64::try_from(seen.last).unwrap())
    .execute(&pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into agent_dirty (org_id, agent_id, seq)
         select distinct org_id, assigned_user_id, 9223372036854775807 from lead_fact
         where assigned_user_id is not null",
    )
    .execute(&pool)
    .await
    .unwrap();
    let _projector = stage.projector(DATABASE, 2);
    crate::stage::applied(&pool, i64::try_from(seen.last).unwrap()).await;
    wait_until("AgentMetrics are computed", Duration::from_secs(300), async || {
        let marked = "select exists (select from agent_dirty)";
        !sqlx::query_scalar::<_, bool>(marked).fetch_one(&pool).await.unwrap()
    })
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let live = tokio::spawn(traffic(
        stage.jetstream().await,
        pool.clone(),
        options.live,
        Arc::clone(&stop),
    ));
    let dashboards = match read {
        true => Some(Arc::new(Dashboards::start(stage, DATABASE, options.reads).await)),
        false => None,
    };
    let mut idle = Figures::default();
    if let Some(dashboards) = &dashboards {
        // The first reads of a process and of its connections are not what is compared.
        dashboards.read(Duration::from_secs(2)).await;
        idle = dashboards.read(Duration::from_secs(options.idle_seconds)).await;
    }
    let started = Instant::now();
    let ((built, resident_mib), beside) =
        while_read(dashboards.as_ref(), operator(stage, memory, "start")).await;
    let took = started.elapsed();
    let ((swapped, _), swapping) =
        while_read(dashboards.as_ref(), operator(stage, memory, "swap")).await;
    let noticed = beside.zip(swapping);
    let noticed = noticed.map(|(beside, swapping)| Noticed { idle, beside, swapping });
    stop.store(true, Ordering::Relaxed);
    let mut delays = live.await.unwrap();
    Run {
        took,
        passes: built["passes"].as_u64().unwrap(),
        estimate_mib: built["peak_memory_bytes"].as_f64().unwrap() / 1_048_576.0,
        resident_mib,
        lock_ms: swapped["lock_ms"].as_f64().unwrap(),
        tries: swapped["tries"].as_u64().unwrap(),
        lag_p50: percentile(&mut delays, 0.5),
        lag_p99: percentile(&mut delays, 0.99),
        noticed,
    }
}

/// Does the work, and tells what was read meanwhile.
async fn while_read<T>(
    dashboards: Option<&Arc<Dashboards>>,
    work: impl Future<Output = T>,
) -> (T, Option<Figures>) {
    let Some(dashboards) = dashboards else { return (work.await, None) };
    let done = Arc::new(AtomicBool::new(false));
    let reading = dashboards.read_until(&done);
    let outcome = work.await;
    done.store(true, Ordering::Relaxed);
    (outcome, Some(reading.await.unwrap()))
}

/// What the command says, and the most memory that its process has held.
async fn operator(stage: &Stage, memory: u32, command: &str) -> (Value, f64) {
    let mut child = Command::new("target/release/projector")
        .args(["rebuild", command, "--yes", "--json"])
        .env("LEADPULSE_CONFIG", stage.scratch.path().join("leadpulse.toml"))
        .env("DATABASE_URL", stage.url(DATABASE))
        .env("NATS_URL", stage.nats.url())
        .env("LEADPULSE_PROJECTOR_REBUILD_MEMORY_MIB", memory.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut peak = 0.0;
    // A process that has ended tells nothing of its memory any more: it is asked all the time.
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while child.try_wait().unwrap().is_none() {
        peak = memory_mib(child.id(), PEAK).unwrap_or(peak);
        look.tick().await;
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}");
    (serde_json::from_slice(&output.stdout).unwrap(), peak)
}

/// Events at a steady rate until told to stop, and how long each took to be visible by SQL.
async fn traffic(
    jetstream: async_nats::jetstream::Context,
    pool: PgPool,
    rate: u64,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let published = Arc::new(Mutex::new(Vec::<(i64, Instant)>::new()));
    let sent = Arc::clone(&published);
    let mut stream = jetstream.get_stream(streams::EVENTS).await.unwrap();
    let publishing = tokio::spawn(async move {
        let mut at = stream.info().await.unwrap().state.last_sequence;
        let few = (rate / 20).max(1);
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            publish(&jetstream, at + 1_000_000_000..at + 1_000_000_000 + few, |n| {
                (n % 1000) as i64
            })
            .await;
            at += few;
            sent.lock().unwrap().push((i64::try_from(at).unwrap(), Instant::now()));
        }
    });
    // First whether it has finished: only then is the last one the last.
    let all = |seq| {
        publishing.is_finished()
            && published.lock().unwrap().last().is_none_or(|(last, _)| seq >= *last)
    };
    let visible = visible(&pool, all).await;
    let published = published.lock().unwrap();
    delays(&published, &visible)
}
