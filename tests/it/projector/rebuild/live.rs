use std::{
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::Value;
use tests::harness::{ORG, PATIENCE, Projection, wait_until};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    time::timeout,
};

use super::{bytes, history, longest_lock_ms, rebuild, setup};
use crate::projector::long;

/// What a reader has seen: how long each read took, by what went on meanwhile.
#[derive(Default)]
struct Seen {
    quiet: Vec<Duration>,
    during: Vec<Duration>,
}

const QUIET: u8 = 0;
const DURING: u8 = 1;

/// Reads as dashboards do until told to stop; an empty, partial or failed answer fails the test.
async fn reader(
    url: String,
    key: String,
    leads: u64,
    stage: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
) -> Seen {
    let client = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let (mut seen, mut last_seq, mut turn) = (Seen::default(), 0_u64, 0_u64);
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let path = match turn % 4 {
            0 => format!("/v1/leads?lifecycle=all&count=exact&limit={}", 5 + turn % 40),
            1 => "/v1/agents/leaderboard?window=90d&limit=50&min_n=0".to_owned(),
            2 => "/v1/kpis/summary?window=30d".to_owned(),
            _ => format!("/v1/leads?order=asc&date_field=last_activity&limit={}", 5 + turn % 40),
        };
        let during = stage.load(Ordering::Relaxed);
        let started = Instant::now();
        let response = client.get(format!("{url}{path}")).bearer_auth(&key).send().await.unwrap();
        let (status, seq) = (response.status(), response.headers().get("leadpulse-seq").cloned());
        let text = response.text().await.unwrap();
        let took = started.elapsed();
        assert_eq!(status, 200, "{path}: {text}");
        if during == DURING {
            seen.during.push(took)
        } else {
            seen.quiet.push(took)
        }
        let seq: u64 = seq.unwrap().to_str().unwrap().parse().unwrap();
        let body: Value = serde_json::from_str(&text).unwrap();
        match turn % 4 {
            0 => {
                let total = body["count"].as_u64().or(body["total"].as_u64()).unwrap_or(leads);
                assert!(total >= leads, "{total} leads are fewer than {leads}: {path}");
                assert!(body["items"].as_array().unwrap().len() >= 5, "{path}: {text}");
            }
            1 | 3 => assert!(!body["items"].as_array().unwrap().is_empty(), "{path}: {text}"),
            _ => {}
        }
        // Memory and the database may be some events apart, never a rebuild.
        assert!(seq + 2000 >= last_seq, "the read models went back from {last_seq} to {seq}");
        last_seq = last_seq.max(seq);
        // A dashboard looks now and then; without a pause the readers would be the load that is measured.
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    seen
}

fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort_unstable();
    samples.get(samples.len() * percent / 100).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_traffic_is_seen_by_no_reader_and_equals_the_live_tables() {
    let environment = [("LEADPULSE_QUERY_API_RATE_LIMIT", "10000000")];
    let mut projection = Projection::start(setup(&environment)).await;
    let events = long(100_000, 8_000);
    for part in history(i64::try_from(events / 40).unwrap(), events, 61).chunks(20_000) {
        projection.publish(part).await;
    }
    projection.settle_within(PATIENCE * 4).await;
    let api = projection.ground.start("query-api").unwrap();
    api.wait_until_ready().await;
    let key = projection.ground.create_key(ORG, &[]);
    let leads = u64::try_from(projection.leads().await.len()).unwrap();

    let (stage, stop) = (Arc::new(AtomicU8::new(QUIET)), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (stage, stop) = (Arc::clone(&stage), Arc::clone(&stop));
            tokio::spawn(reader(api.url().to_owned(), key.clone(), leads, stage, stop))
        })
        .collect();
    let traffic = history(i64::try_from(events / 40).unwrap(), long(20_000, 2_000), 62);
    let mut traffic = traffic.chunks(20);
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // As long without a rebuild as with it, both under the same traffic.
    let quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(long(20, 4) as u64) {
        projection.publish(traffic.next().unwrap_or_default()).await;
        pace.tick().await;
    }
    stage.store(DURING, Ordering::Relaxed);
    let arguments = ["rebuild", "start", "--swap", "--yes", "--json"];
    let mut command =
        tokio::process::Command::from(projection.ground.command("projector", &arguments));
    let rebuilding = tokio::spawn(async move { command.output().await.unwrap() });
    while !rebuilding.is_finished() {
        projection.publish(traffic.next().unwrap_or_default()).await;
        pace.tick().await;
    }
    let output = rebuilding.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let swapped: Value = serde_json::from_slice(&output.stdout).unwrap();
    for part in traffic.by_ref().take(10) {
        projection.publish(part).await;
        pace.tick().await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut seen = Seen::default();
    for reader in readers {
        let one = reader.await.unwrap();
        seen.quiet.extend(one.quiet);
        seen.during.extend(one.during);
    }
    let lock = swapped["lock_ms"].as_f64().unwrap();
    // In a short run a pause of the machine is the hundredth of all that is read.
    let most = long(99, 90);
    let (quiet, during) = (percentile(&mut seen.quiet, most), percentile(&mut seen.during, most));
    println!(
        "rebuild of {events} events under traffic: lock {lock:.1} ms, try {}, {} reads at p{most} {quiet:?} without and \
         {} at {during:?} with it",
        swapped["tries"],
        seen.quiet.len(),
        seen.during.len(),
    );
    assert!(lock < longest_lock_ms(), "readers were held up for {lock} ms");
    assert!(seen.during.len() > 50);
    // Twice the usual and a little, with binaries that are not optimised; beside other tests the cores are
    // everybody's.
    let allowance = Duration::from_millis(long(20, 250) as u64);
    assert!(during < quiet * 2 + allowance, "{during:?} beside {quiet:?}");

    // The tables that were live before, caught up by the same fold, against the rebuilt ones.
    projection.settle_within(PATIENCE * 4).await;
    let rebuilt = bytes(&projection).await;
    verified(&projection).await;
    if events <= 10_000 {
        projection.check().await;
    }
    rebuild(&projection, &["rollback"]);
    wait_until("the projection goes on", PATIENCE, async || {
        api.page("/health/readiness").await.status == 200
    })
    .await;
    projection.settle_within(PATIENCE * 4).await;
    assert!(bytes(&projection).await == rebuilt, "the rebuilt rows are not the live ones");
    verified(&projection).await;
}

/// Each row, those of AgentMetrics computed again for the instant at which they were computed. A projector that
/// begins computes all agents once more, and one that waits for it is not compared.
async fn verified(projection: &Projection) {
    wait_until("each agent is compared", PATIENCE, async || {
        let mut verify = projection.ground.command("projector", &["verify", "--json"]);
        let output = tokio::task::block_in_place(|| verify.output().unwrap());
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(verdict["equal"], true, "{verdict}");
        verdict["pending_agents"] == 0 && verdict["agents"].as_u64().unwrap() > 0
    })
    .await;
}

/// The worker is never done with its marks then, and the new tables follow all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_is_swapped_while_events_come_without_a_pause() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(50, 1500, 63)).await;
    projection.settle().await;
    let traffic = history(50, 60_000, 64);
    let mut traffic = traffic.chunks(8);
    let mut pace = tokio::time::interval(Duration::from_millis(15));
    let arguments = ["rebuild", "start", "--swap", "--yes"];
    let mut command =
        tokio::process::Command::from(projection.ground.command("projector", &arguments));
    let rebuilding = tokio::spawn(async move { command.output().await.unwrap() });
    let began = Instant::now();
    while !rebuilding.is_finished() {
        assert!(began.elapsed() < PATIENCE * 2, "the new tables never get there");
        projection.publish(traffic.next().unwrap_or_default()).await;
        pace.tick().await;
    }
    let output = rebuilding.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    projection.check().await;
}

/// A projector that is frozen with its lease is as far behind as one that can't keep up.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_rests_while_the_live_projection_is_behind_and_is_finished_later() {
    let ttl = [("LEADPULSE_PROJECTOR_LEASE_TTL_MS", "60000")];
    let mut projection = Projection::start(setup(&ttl)).await;
    projection.publish(&history(50, 500, 65)).await;
    projection.settle().await;
    projection.projector.signal("STOP");
    projection.publish(&history(200, 4000, 66)).await;
    let arguments = ["rebuild", "start", "--yes"];
    let mut command =
        tokio::process::Command::from(projection.ground.command("projector", &arguments));
    let mut rebuilding = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(rebuilding.stderr.take().unwrap()).lines();
    let resting = timeout(PATIENCE, async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.starts_with("resting: the live projection is behind") {
                return line;
            }
        }
        panic!("it ended without a rest");
    });
    let resting = resting.await.expect("it rests");
    assert!(resting.contains(" s at most, "), "what is counted is said: {resting}");
    assert!(rebuilding.try_wait().unwrap().is_none(), "it is finished");
    projection.projector.signal("CONT");
    let rest = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let output = timeout(PATIENCE * 2, rebuilding.wait_with_output()).await.unwrap().unwrap();
    rest.await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(rebuild(&projection, &["status"])["phase"], "ready to swap");
    rebuild(&projection, &["swap"]);
    projection.check().await;
}
