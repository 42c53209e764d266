//! The projector beside its two limits: reading the stream, and upserting the same rows.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use leadpulse_service::config::Config;
use projector::{
    event::{LeadKey, Meaning, decode},
    fold::{LeadRow, LeadState},
    lane::{Item, Routes},
    mapping::Mapping,
    reader, store,
};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    report::{milliseconds, per_second, percentile, rate, table},
    stage::{CONFIG, Spread, Stage, applied, delays, event, publish, visible},
};

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
    /// Seconds of the live measurement at 2,000 events a second
    #[arg(long, default_value_t = 20)]
    live_seconds: u64,
    /// Leads that stand in the table before the run, for how the cost grows
    #[arg(long, value_delimiter = ',', default_values_t = [100_000, 1_000_000])]
    tables: Vec<i64>,
}

pub(crate) async fn run(options: &Options) {
    let stage = Stage::start();
    let mut rows = Vec::new();
    for spread in [Spread::Uniform, Spread::Skewed] {
        rows.push(throughput(&stage, options, spread).await);
    }
    table(
        &[
            "events",
            "(a) read, decode",
            "(b) upserts of 1,000",
            "(c) rows",
            "(c) / (b)",
            "(c) events",
            "events a row",
            "commit p99",
            "peak memory",
        ],
        &rows,
    );
    live(&stage, options).await;
    growth(&stage, options).await;
    agents(&stage).await;
}

pub(crate) fn mapping() -> Arc<Mapping> {
    let config = Config::parse("bench", CONFIG, &|_| None).unwrap();
    Arc::new(Mapping::of(&config))
}

async fn throughput(stage: &Stage, options: &Options, spread: Spread) -> Vec<String> {
    eprintln!("filling the stream with {} events, {spread:?}", options.events);
    stage.new_stream().await;
    let jetstream = stage.jetstream().await;
    publish(&jetstream, 0..options.events, |n| spread.lead(n, options.leads)).await;

    eprintln!("(a) reading and decoding");
    let read = read_only(stage, options.events).await;

    eprintln!("(c) the projector");
    let pool = stage.new_database("bench_projector").await;
    let started = Instant::now();
    let projector = stage.projector("bench_projector", options.lanes);
    let last = i64::try_from(options.events).unwrap();
    let first = applied(&pool, 1).await;
    applied(&pool, last).await;
    // The start of the process is not its throughput: count from the first commit.
    let took = started.elapsed() - first;
    let written = projector.metric("projector_rows_written_total").await as usize;
    let commit = quantile(&projector.metrics().await, "projector_commit_seconds", 0.99);
    let peak = projector.peak_mebibytes();
    drop(projector);

    eprintln!("(b) upserts alone");
    let upserts = upserts_only(stage, options, spread).await;
    let rows = rate(written, took);
    vec![
        format!("{} k over {} k leads, {spread:?}", options.events / 1000, options.leads / 1000),
        per_second(read),
        per_second(upserts),
        per_second(rows),
        format!("{:.2}", rows / upserts),
        per_second(rate(options.events as usize, took)),
        format!("{:.2}", options.events as f64 / written as f64),
        milliseconds(Duration::from_secs_f64(commit)),
        format!("{peak:.0} MiB"),
    ]
}

/// (a): the projector's own reader and decoder, with nobody behind them.
pub(crate) async fn read_only(stage: &Stage, events: u64) -> f64 {
    let jetstream = stage.jetstream().await;
    let stream = reader::find(&jetstream).await.unwrap();
    let seen = reader::look(&stream).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(projector::lane::QUEUE);
    let stop = CancellationToken::new();
    let (token, mapping) = (stop.clone(), mapping());
    let started = Instant::now();
    let reading = tokio::spawn(async move {
        reader::read(&stream, &seen.identity, 0, &Routes::new(vec![sender]), token).await
    });
    let mut count = 0;
    while let Some(item) = receiver.recv().await {
        if let Item::Event(delivery) = item {
            let envelope = delivery.envelope.unwrap();
            assert!(matches!(decode(&envelope, delivery.seq, None, &mapping), Meaning::Lead(_)));
            count += 1;
            if count == events {
                break;
            }
        }
    }
    let took = started.elapsed();
    stop.cancel();
    drop(receiver);
    let _ = reading.await;
    rate(count as usize, took)
}

/// (b): the rows that the projector writes, each as it was then, in statements of 1,000, from as many
/// connections as there are lanes, into a table with the same indexes. Each lead is one connection's, as it is
/// one lane's.
async fn upserts_only(stage: &Stage, options: &Options, spread: Spread) -> f64 {
    let pool = stage.new_database("bench_upserts").await;
    let lanes = written_by_lane(options, spread);
    let rows: usize = lanes.iter().map(Vec::len).sum();
    let started = Instant::now();
    let mut writers = Vec::new();
    for lane in lanes {
        let pool = pool.clone();
        writers.push(tokio::spawn(async move {
            for statement in lane.chunks(1000) {
                let mut tx = pool.begin().await.unwrap();
                store::upsert_leads(&mut tx, &without_repeats(statement)).await.unwrap();
                tx.commit().await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    rate(rows, started.elapsed())
}

type Written = (LeadKey, LeadRow, Vec<u8>);

/// Postgres takes a key once in a statement: of several versions, the last. In the order of the keys, as in a
/// lane.
fn without_repeats(rows: &[Written]) -> Vec<(&LeadKey, &LeadRow, Vec<u8>)> {
    let last: BTreeMap<&LeadKey, &Written> = rows.iter().map(|row| (&row.0, row)).collect();
    last.into_values().map(|(key, row, state)| (key, row, state.clone())).collect()
}

/// Every version of every lead's row, coalesced over as many events as a lane takes when it is behind.
fn written_by_lane(options: &Options, spread: Spread) -> Vec<Vec<Written>> {
    let mapping = mapping();
    let board = mapping.board(crate::stage::ORG, 9001).unwrap();
    let lanes = u64::from(options.lanes);
    let mut written: Vec<Vec<Written>> = (0..lanes).map(|_| Vec::new()).collect();
    let mut states = HashMap::<LeadKey, LeadState>::new();
    let batch = lanes * 5000;
    for start in (0..options.events).step_by(usize::try_from(batch).unwrap()) {
        let mut touched = BTreeSet::new();
        for n in start..(start + batch).min(options.events) {
            let envelope = event(spread.lead(n, options.leads), n);
            if let Meaning::Lead(event) = decode(&envelope, n + 1, None, &mapping) {
                states.entry(event.key.clone()).or_default().apply(&event);
                touched.insert((event.key.item_id, event.key.clone()));
            }
        }
        for (item_id, key) in touched {
            let state = &states[&key];
            let lane = usize::try_from(item_id.unsigned_abs() % lanes).unwrap();
            let Some(row) = state.row(board) else { continue };
            written[lane].push((key, row, state.encode()));
        }
    }
    written
}

/// Published → visible by SQL, at 2,000 events a second.
async fn live(stage: &Stage, options: &Options) {
    eprintln!("live at 2,000 events a second");
    stage.new_stream().await;
    let pool = stage.new_database("bench_live").await;
    let _projector = stage.projector("bench_live", options.lanes);
    applied(&pool, 0).await;
    let jetstream = stage.jetstream().await;
    let total = options.live_seconds * 2000;
    let publishing = tokio::spawn(async move {
        let mut published = Vec::new();
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        for group in 0..total / 20 {
            pace.tick().await;
            publish(&jetstream, group * 20..(group + 1) * 20, |n| Spread::Uniform.lead(n, 100_000))
                .await;
            published.push((i64::try_from((group + 1) * 20).unwrap(), Instant::now()));
        }
        published
    });
    let last = i64::try_from(total).unwrap();
    let visible = visible(&pool, |seq| seq >= last).await;
    let mut delays = delays(&publishing.await.unwrap(), &visible);
    println!(
        "\npublished → visible by SQL at 2,000 events/s over {} s: p50 {}, p99 {}, max {}",
        options.live_seconds,
        milliseconds(percentile(&mut delays, 0.5)),
        milliseconds(percentile(&mut delays, 0.99)),
        milliseconds(percentile(&mut delays, 1.0)),
    );
}

/// The same 100,000 events on tables of more and more leads.
async fn growth(stage: &Stage, options: &Options) {
    let mut rows = Vec::new();
    for size in &options.tables {
        eprintln!("a table of {size} leads");
        stage.new_stream().await;
        let pool = stage.new_database("bench_growth").await;
        fill(&pool, *size).await;
        let jetstream = stage.jetstream().await;
        publish(&jetstream, 0..100_000, |n| Spread::Uniform.lead(n, *size)).await;
        let started = Instant::now();
        let projector = stage.projector("bench_growth", options.lanes);
        let first = applied(&pool, 1).await;
        applied(&pool, 100_000).await;
        let took = started.elapsed() - first;
        let commit = quantile(&projector.metrics().await, "projector_commit_seconds", 0.99);
        rows.push(vec![
            format!("{} k", size / 1000),
            per_second(rate(100_000, took)),
            milliseconds(Duration::from_secs_f64(commit)),
        ]);
    }
    table(&["leads in the table", "events", "commit p99"], &rows);
}

/// Leads as the projector would have written them, all of them with a state that it can read.
async fn fill(pool: &PgPool, leads: i64) {
    sqlx::query(
        "insert into lead_fact (org_id, board_id, item_id, name, assigned_user_id, entered_at, entered_source,
             first_touch_at, last_activity_at, state, closed_won_at, closed_by_user_id, lifecycle, last_event_at,
             last_seq, fold_state)
         select 'bench', 9001, n, 'Lead ' || n, 1 + n % 500, now() - n % 2160 * interval '1 hour', 'created',
             now() - n % 2000 * interval '1 hour', now(), case when n % 4 = 2 then 'won' else 'open' end,
             case when n % 4 = 2 then now() - n % 1900 * interval '1 hour' end,
             case when n % 4 = 2 then 1 + n % 500 end, 'active', now(), 0, $2
         from generate_series(0, $1 - 1) as n",
    )
    .bind(leads)
    .bind(LeadState::default().encode())
    .execute(pool)
    .await
    .unwrap();
    sqlx::query("vacuum analyze lead_fact").execute(pool).await.unwrap();
}

/// One agent with 450 and with 9,000 leads of 90 days; 1,000 dirty agents; 1, 10 and 100 agents a batch.
async fn agents(stage: &Stage) {
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
    let worker = projector::agents::Worker::new(
        pool.clone(),
        1,
        &config.orgs,
        progress,
        Arc::new(chrono::Utc::now),
    );
    let mut rows = Vec::new();
    let cases: [(&str, &str, u32, u32); 6] = [
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
        ("1,000 agents of 450, again", "select generate_series(1, 1000)", 1000, 3),
    ];
    for (name, agents, count, times) in cases {
        let mut took = Vec::new();
        for _ in 0..times {
            let mark = format!(
                "insert into agent_dirty (org_id, agent_id, seq) select 'bench', agent, 0 from ({agents}) as a (agent)"
            );
            sqlx::query(sqlx::AssertSqlSafe(mark)).execute(&pool).await.unwrap();
            let started = Instant::now();
            assert!(worker.step().await.unwrap());
            took.push(started.elapsed());
        }
        let median = percentile(&mut took, 0.5);
        rows.push(vec![name.to_owned(), milliseconds(median), milliseconds(median / count)]);
    }
    table(&["recomputed", "median", "an agent"], &rows);
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
