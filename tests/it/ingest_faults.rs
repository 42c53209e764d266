//! Whatever breaks under a steady load, every 200 that a client saw is in the stream exactly once.
//!
//! Shortened by default; in full length with `LEADPULSE_TEST_LONG=1`.

use std::time::{Duration, Instant};

use tests::{
    door::{Door, DoorSetup, start_nats},
    harness::{long_run, wait_until},
    load::{Load, audit},
    proxy::{Proxy, Weather},
    wire::Connection,
};
use xtask::servers::{Scratch, Server};

const PATIENCE: Duration = Duration::from_secs(30);
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(4);

/// How often a fault is repeated, and how much load lies between.
fn rounds() -> (usize, u64) {
    if long_run() { (5, 2000) } else { (5, 100) }
}

async fn under_load() -> (Door, Load) {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let load = Load::start(&door, CLIENTS, PAUSE);
    load.wait_for(100, PATIENCE).await;
    (door, load)
}

/// A door whose way to NATS leads through a proxy, with these lines in its section `[ingest]`.
pub(super) async fn behind_a_proxy(ingest: &str) -> (Door, Server, Proxy, Scratch) {
    let scratch = Scratch::new("proxied").unwrap();
    let nats = start_nats(scratch.path()).unwrap();
    let proxy = Proxy::start(nats.port()).await.unwrap();
    let setup = DoorSetup {
        nats_url: Some(format!("nats://127.0.0.1:{}", proxy.port())),
        no_nats: true,
        ingest: ingest.to_owned(),
        ..DoorSetup::default()
    };
    let mut door = Door::start(setup).await.ready().await;
    door.nats_url = nats.url().to_owned();
    (door, nats, proxy, scratch)
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_killed_five_times_loses_no_acknowledged_webhook() {
    let (mut door, load) = under_load().await;
    let (rounds, between) = rounds();
    for _ in 0..rounds {
        door.nats.as_mut().unwrap().kill9();
        wait_until("the loss is noticed", PATIENCE, async || {
            door.get("/health/readiness").status == 503
        })
        .await;
        door.nats.as_mut().unwrap().restart().unwrap();
        load.wait_for(between, PATIENCE).await;
    }
    load.assert_answered_in_time();
    let seen = load.end().await;
    audit(&door, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_killed_and_started_again_loses_no_acknowledged_webhook() {
    let (mut door, load) = under_load().await;
    let (rounds, between) = rounds();
    for _ in 0..rounds {
        door.ingest.kill_and_restart();
        load.aim(&door);
        load.wait_for(between, PATIENCE).await;
    }
    let seen = load.end().await;
    audit(&door, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_ingest_ends_within_its_deadline_and_loses_nothing() {
    let (mut door, load) = under_load().await;
    assert!(door.ingest.stop(Duration::from_secs(9)), "it did not end by itself");
    door.ingest.restart().unwrap();
    load.aim(&door);
    load.wait_for(100, PATIENCE).await;
    let seen = load.end().await;
    audit(&door, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_does_not_keep_a_drained_ingest() {
    let ingest = "read_within_ms = 60000".to_owned();
    let mut door = Door::start(DoorSetup { ingest, ..DoorSetup::default() }).await.ready().await;
    let request = super::hostile::by_token(br#"{"event":{"type":"x"}}"#);
    let mut stuck = Connection::open(&door.address()).unwrap();
    stuck.send(&request[..request.len() - 5]).unwrap();
    wait_until("it is waited for", PATIENCE, async || {
        door.metric("ingest_webhooks_in_flight", &[]) >= 1.0
    })
    .await;
    door.ingest.signal("TERM");
    let ended = door.ingest.ended(Duration::from_secs(9)).await;
    assert_eq!(ended.and_then(|status| status.code()), Some(0), "within 9 s");
    assert!(door.ingest.log_text().contains("still open at the drain deadline"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_network_is_answered_in_time_and_loses_nothing() {
    let (door, _nats, proxy, _scratch) = behind_a_proxy("").await;
    let load = Load::start(&door, CLIENTS, PAUSE);
    load.wait_for(100, PATIENCE).await;
    let frozen = Duration::from_secs(if long_run() { 20 } else { 6 });
    for (weather, lasting) in [
        (Weather::Frozen, Duration::from_secs(1)),
        (Weather::Slow(Duration::from_millis(400)), Duration::from_secs(3)),
        (Weather::Cut, Duration::from_secs(2)),
        (Weather::Frozen, frozen),
        (Weather::Slow(Duration::from_millis(900)), Duration::from_secs(4)),
    ] {
        proxy.set(weather);
        // The weather is what is tested: it lasts as long as it lasts, whatever becomes of the webhooks.
        tokio::time::sleep(lasting).await;
        proxy.set(Weather::Fair);
        let back = load.wait_for(100, PATIENCE).await;
        eprintln!("{weather:?} for {lasting:?}: 100 webhooks taken in {back:?} after its end");
    }
    load.assert_answered_in_time();
    let seen = load.end().await;
    audit(&door, &seen).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_ingest_starts_is_not_ready_and_recovers_by_itself() {
    let scratch = Scratch::new("late").unwrap();
    let mut nats = start_nats(scratch.path()).unwrap();
    nats.kill9();
    let url = Some(nats.url().to_owned());
    let setup = DoorSetup { nats_url: url, no_nats: true, ..DoorSetup::default() };
    let door = Door::start(setup).await;
    assert_eq!(door.get("/health/liveness").status, 200);
    assert_eq!(door.get("/health/readiness").status, 503);
    let mut took = Vec::new();
    for _ in 0..3 {
        let began = Instant::now();
        let answer = door.send(&[&super::hostile::by_token(br#"{"event":{"type":"x"}}"#)]);
        assert_eq!((answer.status, answer.body.as_str()), (503, ""));
        assert!(answer.head.contains("retry-after:"), "{answer:?}");
        took.push(began.elapsed());
    }
    assert!(took.iter().min().unwrap() < &Duration::from_secs(5), "{took:?}");
    nats.restart().unwrap();
    door.wait_until_ready().await;
    let answer = door.send(&[&super::hostile::by_token(br#"{"event":{"type":"x"}}"#)]);
    assert_eq!(answer.status, 200);
}
