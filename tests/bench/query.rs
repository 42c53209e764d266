//! `query-api` beside a bare HTTP server that answers with the same bytes; its misses on two million
//! leads; and what happens when many come at once.

mod bare;
mod hits;
pub(crate) mod load;
mod questions;
pub(crate) mod stage;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use tests::harness::{PATIENCE, wait_until};

use crate::report::{milliseconds, per_second, percentile, table};
use load::{Client, Figures, Load, Requests, middle};
use questions::{Kind, comparison, kinds, screen};
use stage::{LARGE, ORGS, Size, Stage, read, request};

const CONNECTIONS: usize = 64;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to measure; all of it, if nothing is said
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// How often hits are measured beside the bare server; the round with the middle share is shown
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leads of the ten orgs together
    #[arg(long, default_value_t = 2_000_000)]
    leads: i64,
    /// Agents of each org
    #[arg(long, default_value_t = 500)]
    agents: i64,
    /// Leads of one more org, for exports and for how the cost grows
    #[arg(long, default_value_t = 1_000_000)]
    large: i64,
    /// Be the bare server on this port
    #[arg(long, hide = true, requires = "body")]
    bare: Option<u16>,
    #[arg(long, hide = true)]
    body: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Only fill Postgres; later runs find it filled
    Fill,
    /// First level, 304, Redis, beside the bare server
    Hits,
    /// Reads that nobody has asked for before
    Misses,
    /// The misses of an org with five times the leads, hits and misses by the number of connections
    Growth,
    /// Beside the figures of the earlier product
    Comparison,
    /// 1,000 requests at once for one answer that is too old
    Crowd,
    /// The first minute after a start
    Cold,
    /// 5,000 open streams
    Streams,
    /// A file of all leads of the large org
    Export,
}

pub(crate) async fn run(options: &Options) {
    if let (Some(port), Some(body)) = (options.bare, &options.body) {
        return bare::serve(port, body).await;
    }
    let size = Size { leads: options.leads, agents: options.agents, large: options.large };
    let stage = Stage::start(size).await;
    let span = Duration::from_secs(options.seconds);
    let wanted = |part| options.parts.is_empty() || options.parts.contains(&part);
    if wanted(Part::Comparison) {
        upsert_of_one_agent(&stage).await;
    }
    if options.parts == [Part::Fill] {
        return;
    }
    let projector = stage.projector().await;
    if wanted(Part::Misses) {
        misses(&stage, options.rounds, span).await;
    }
    if wanted(Part::Growth) {
        growth(&stage, options.rounds, span).await;
    }
    if wanted(Part::Comparison) {
        against_the_earlier(&stage, span).await;
    }
    if wanted(Part::Crowd) {
        crowd(&stage).await;
    }
    if wanted(Part::Cold) {
        cold(&stage).await;
    }
    if wanted(Part::Streams) {
        streams(&stage).await;
    }
    if wanted(Part::Export) {
        export(&stage).await;
    }
    // The projector raises a version whenever the clock overtakes a figure, which ends what is in the caches.
    drop(projector);
    if wanted(Part::Hits) {
        hits::measure(&stage, options.rounds, span).await;
    }
}

fn always(request: Arc<[u8]>) -> Requests {
    Arc::new(move |_| Arc::clone(&request))
}

const MISSES: [&str; 5] = [
    "read",
    "one at a time p50 / p99",
    "rate at 64 connections",
    "p50 / p99 at half of it",
    "refused",
];

/// One kind of read: alone, as fast as it goes, and at half of that; the last in rounds, for a single stall of
/// the machine is more than a hundredth of so few.
async fn miss(
    port: u16,
    kind: &Arc<Kind>,
    keys: &[String],
    rounds: usize,
    span: Duration,
) -> Vec<String> {
    let load = |connections| Load::new(port, connections, span);
    let warm = Load { most: Some(20), ..load(1) };
    warm.run(kind.misses(keys)).await;
    let mut alone = Load { most: Some(300), ..load(1) }.run(kind.misses(keys)).await;
    let full = load(CONNECTIONS).run(kind.misses(keys)).await;
    let half = Load { rate: Some(full.answered() / 2.0), ..load(CONNECTIONS) };
    let mut calm = Vec::new();
    for _ in 0..rounds.max(1) {
        calm.push(half.run(kind.misses(keys)).await);
    }
    let refused: usize = calm.iter().map(Figures::refused_count).sum();
    vec![
        kind.name.to_owned(),
        alone.spread(),
        per_second(full.answered()),
        middle(&mut calm),
        format!("{}, {refused}", full.refused()),
    ]
}

/// (e) in the ten orgs.
async fn misses(stage: &Stage, rounds: usize, span: Duration) {
    let api = stage.query_api(&[]).await;
    let mut rows = Vec::new();
    for kind in kinds(stage, api.port).await {
        // Cursors are of the first org.
        let keys = if kind.name.contains("10,000") { &stage.orgs()[..1] } else { stage.orgs() };
        rows.push(miss(api.port, &kind, keys, rounds, span).await);
    }
    table(&MISSES, &rows);
    println!("\nquery-api: {:.0} MiB at most", api.peak());
}

/// (e) in the large org.
async fn growth(stage: &Stage, rounds: usize, span: Duration) {
    let api = stage.query_api(&[]).await;
    let mut rows = Vec::new();
    for kind in kinds(stage, api.port).await {
        if !kind.name.contains("10,000") {
            rows.push(miss(api.port, &kind, &stage.keys[ORGS..], rounds, span).await);
        }
    }
    println!("\nthe org `{LARGE}`");
    table(&MISSES, &rows);
    drop(api);
    by_connections(stage, span).await;
}

/// Hits, and misses of a page of leads, each connection asking without a pause.
async fn by_connections(stage: &Stage, span: Duration) {
    let api = stage.query_api(&[("CACHE_TTL_SECONDS", "3600")]).await;
    let path = "/v1/kpis/summary?from=2026-01-01&to=2026-02-01";
    read(api.port, &stage.keys[0], path).await;
    let hit = always(request(&stage.keys[0], path, ""));
    let pages = kinds(stage, api.port).await.into_iter().find(|kind| kind.name.contains("page 1 "));
    let page = pages.unwrap();
    let mut rows = Vec::new();
    for connections in [1, 4, 16, 64, 256, 1024] {
        let load = || Load::new(api.port, connections, span);
        let mut hits = load().run(Arc::clone(&hit)).await;
        assert!(hits.are_all(200, "memory; hit"), "{:?}", hits.origins);
        let mut misses = load().run(page.misses(stage.orgs())).await;
        rows.push(vec![
            connections.to_string(),
            per_second(hits.rate),
            hits.spread(),
            per_second(misses.answered()),
            misses.spread(),
            misses.refused(),
            format!("{:.0} MiB", api.peak()),
        ]);
    }
    table(
        &[
            "connections",
            "hits",
            "p50 / p99",
            "page 1 of leads, misses",
            "p50 / p99",
            "refused",
            "query-api at most",
        ],
        &rows,
    );
}

/// The projector's own worker, one agent at a time.
async fn upsert_of_one_agent(stage: &Stage) {
    let config =
        leadpulse_service::config::Config::parse("bench", "[[orgs]]\nid = \"org-0\"\n", &|_| None);
    stage
        .execute(
            "delete from agent_dirty; delete from checkpoint;
             insert into checkpoint (projection, lane, stream, stream_created_at, seq, fence)
             values ('agents', 0, 's', now(), 0, 1)"
                .to_owned(),
        )
        .await;
    let mut worker = projector::agents::Worker::new(
        stage.pool.clone(),
        1,
        &config.unwrap().orgs,
        Arc::new(projector::lane::Progress::new(&[0])),
        Arc::new(chrono::Utc::now),
        256 << 20,
    );
    let mut took = Vec::new();
    for agent in 7000..7200 {
        let mark =
            format!("insert into agent_dirty (org_id, agent_id, seq) values ('org-0', {agent}, 0)");
        stage.execute(mark).await;
        let started = Instant::now();
        assert!(worker.step().await.unwrap());
        took.push(started.elapsed());
    }
    let (middle, high) = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
    println!(
        "\none agent's metrics, all windows, computed and upserted: {} / {} (earlier product: 25 ms)",
        milliseconds(middle),
        milliseconds(high)
    );
}

async fn against_the_earlier(stage: &Stage, span: Duration) {
    let api = stage.query_api(&[]).await;
    let mut rows = Vec::new();
    for (kind, earlier) in comparison().iter().zip(["40 ms", "450 ms", "loads 10 to 20 rows"]) {
        let alone = Load { most: Some(500), ..Load::new(api.port, 1, span) };
        let mut miss = alone.run(kind.misses(stage.orgs())).await;
        rows.push(vec![kind.name.to_owned(), earlier.to_owned(), miss.spread()]);
    }
    table(&["work", "earlier product", "a miss here, p50 / p99"], &rows);
}

/// 1,000 at once.
async fn crowd(stage: &Stage) {
    let api = stage.query_api(&[]).await;
    let path = "/v1/kpis/summary?window=90d";
    read(api.port, &stage.keys[0], path).await;
    let mut clients = Vec::new();
    for _ in 0..1000 {
        clients.push(Client::connect(api.port).await);
    }
    // A new version ends every answer at once, however long it would have served.
    let other = "/v1/kpis/funnel?window=90d";
    read(api.port, &stage.keys[0], other).await;
    stage.raise_versions().await;
    wait_until("the new version is known", PATIENCE, async || {
        let other = request(&stage.keys[0], other, "");
        let mut client = Client::connect(api.port).await;
        client.ask(&other).await.1.contains("fwd=miss")
    })
    .await;
    let (asked, made) = (["family=\"summary\""], ["family=\"summary\"", "from=\"database\""]);
    let reads = async |words: &[&str]| api.metric("query_api_reads_total", words).await;
    let (asked_before, made_before) = (reads(&asked).await, reads(&made).await);
    let (started, request) = (Instant::now(), request(&stage.keys[0], path, ""));
    let answers = clients.into_iter().map(|mut client| {
        let request = Arc::clone(&request);
        tokio::spawn(async move { client.ask(&request).await.0 })
    });
    for status in futures_util::future::join_all(answers.collect::<Vec<_>>()).await {
        assert_eq!(status.unwrap(), 200);
    }
    let took = started.elapsed();
    wait_until("the metrics tell of all reads", PATIENCE, async || {
        reads(&asked).await >= asked_before + 1000.0
    })
    .await;
    let made = reads(&made).await - made_before;
    println!(
        "\n1,000 requests at once for one summary that has just ended: all answered in {}, read from Postgres {made} time(s)",
        milliseconds(took)
    );
}

/// The first minute of a new process while dashboards ask, with nothing in Redis: of the first one ever, and
/// of one that comes after another.
async fn cold(stage: &Stage) {
    let (keys, screen) = (stage.orgs().to_vec(), screen());
    let questions: Requests = Arc::new(move |n| {
        let path = &screen[n as usize % screen.len()];
        request(&keys[n as usize / screen.len() % ORGS], path, "")
    });
    let load = |port, seconds| Load {
        rate: Some(500.0),
        ..Load::new(port, CONNECTIONS, Duration::from_secs(seconds))
    };
    for first_ever in [true, false] {
        stage.execute("delete from hot_read".to_owned()).await;
        if !first_ever {
            let mut before = stage.query_api(&[]).await;
            load(before.port, 10).run(Arc::clone(&questions)).await;
            assert!(before.stop(), "the process before does not end");
        }
        let mut redis = redis::Client::open(stage.redis.url()).unwrap().get_connection().unwrap();
        redis::cmd("FLUSHALL").exec(&mut redis).unwrap();
        let started = Instant::now();
        let api = stage.query_api(&[]).await;
        let ready = started.elapsed();
        let mut figures = load(api.port, 60).run(Arc::clone(&questions)).await;
        println!(
            "\nfirst minute of {} ({} until ready) at 500 reads a second: p50 / p99 {}, slowest {}, {:?}",
            if first_ever { "the first process" } else { "a process after another" },
            milliseconds(ready),
            figures.spread(),
            figures.slowest(&questions),
            figures.origins
        );
    }
}

async fn streams(stage: &Stage) {
    const STREAMS: usize = 5000;
    let api = stage.query_api(&[]).await;
    let before = api.resident();
    let mut clients = Vec::new();
    for n in 0..STREAMS {
        let mut client = Client::connect(api.port).await;
        let (status, _) = client.ask(&request(&stage.keys[n % ORGS], "/v1/stream", "")).await;
        assert_eq!(status, 200);
        clients.push(client);
    }
    let open = api.resident();
    let started = Instant::now();
    stage.raise_versions().await;
    let heard = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let mut text = String::new();
            while !text.contains("event: changed") {
                text.push_str(&String::from_utf8_lossy(client.more().await));
            }
            (Instant::now(), client)
        })
    });
    let mut times = Vec::new();
    let mut open_still = Vec::new();
    for heard in futures_util::future::join_all(heard.collect::<Vec<_>>()).await {
        let (at, client) = heard.unwrap();
        times.push(at - started);
        open_still.push(client);
    }
    println!(
        "\n{STREAMS} open streams: {open:.0} MiB resident ({before:.0} before), {:.0} MiB after a hint to all; from the change to the hint p50 {} / last {}",
        api.resident(),
        milliseconds(percentile(&mut times, 0.5)),
        milliseconds(percentile(&mut times, 1.0)),
    );
}

async fn export(stage: &Stage) {
    let api = stage.query_api(&[]).await;
    let before = api.resident();
    let started = Instant::now();
    let url = format!("http://127.0.0.1:{}/v1/export/leads.csv?lifecycle=all", api.port);
    let request = reqwest::Client::builder()
        .no_proxy()
        .build()
        .unwrap()
        .get(url)
        .bearer_auth(&stage.keys[ORGS]);
    let mut file = request.send().await.unwrap().error_for_status().unwrap();
    let (mut bytes, mut rows) = (0, 0);
    while let Some(part) = file.chunk().await.unwrap() {
        bytes += part.len();
        rows += part.iter().filter(|byte| **byte == b'\n').count();
    }
    let took = started.elapsed();
    println!(
        "\nCSV of {rows} rows, {:.0} MiB in {:.1} s: {:.0} MiB resident at most ({before:.0} before)",
        bytes as f64 / (1024.0 * 1024.0),
        took.as_secs_f64(),
        api.peak(),
    );
}
