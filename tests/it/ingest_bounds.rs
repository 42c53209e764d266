//! Everything at the door is bounded: publishes in flight, bodies in memory, what the quarantine keeps,
//! and what half-open connections can do to others.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::{
    door::{Door, DoorSetup, start_nats},
    harness::{PATIENCE, wait_until},
    proxy::Weather,
    wire::{Connection, RawAnswer, exchange},
};
use xtask::servers::Scratch;

use super::{
    hostile::{by_token, signed},
    ingest_faults::behind_a_proxy,
};

fn event(n: usize) -> Vec<u8> {
    format!(r#"{{"event":{{"type":"x","n":{n}}}}}"#).into_bytes()
}

/// Sends so many different events at once, without waiting for their answers.
fn send_at_once(door: &Door, count: usize) -> Vec<JoinHandle<RawAnswer>> {
    let address = door.address();
    let send = |n| {
        let address = address.clone();
        thread::spawn(move || exchange(&address, &[&by_token(&event(n))]))
    };
    (0..count).map(send).collect()
}

fn assert_all_stored(answers: Vec<JoinHandle<RawAnswer>>) {
    for answer in answers {
        let answer = answer.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_max_in_flight_a_webhook_is_shed_at_once_and_those_in_flight_are_stored() {
    let bounds = "max_in_flight = 4\nanswer_within_ms = 4900";
    let (door, _nats, proxy, _scratch) = behind_a_proxy(bounds).await;
    proxy.set(Weather::Frozen);
    let in_flight = send_at_once(&door, 4);
    wait_until("four are in flight", PATIENCE, async || {
        door.metric("ingest_publishes_in_flight", &[]) >= 4.0
    })
    .await;
    let began = Instant::now();
    let shed = door.send(&[&by_token(&event(4))]);
    // Those in flight wait for their time; who is shed does not.
    assert!(began.elapsed() < Duration::from_secs(2), "shed after {:?}", began.elapsed());
    assert_eq!((shed.status, shed.body.as_str()), (503, ""), "{shed:?}");
    assert!(shed.head.contains("retry-after:"), "{shed:?}");
    assert_eq!(door.metric("ingest_webhooks_total", &[("reason", "overloaded")]), 1.0);

    proxy.set(Weather::Fair);
    assert_all_stored(in_flight);
    assert_eq!(door.messages("LEADPULSE_EVENTS").await.len(), 4);
    assert_eq!(door.send(&[&by_token(&event(4))]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_again_stands_in_the_stream_once() {
    let (door, _nats, proxy, _scratch) = behind_a_proxy("answer_within_ms = 4900").await;
    assert_eq!(door.metric("ingest_publish_resends_total", &[]), 0.0);
    proxy.set(Weather::Frozen);
    let in_flight = send_at_once(&door, 8);
    wait_until("they are sent again", PATIENCE, async || {
        door.metric("ingest_publish_resends_total", &[]) >= 8.0
    })
    .await;
    proxy.set(Weather::Fair);
    assert_all_stored(in_flight);
    assert_eq!(door.messages("LEADPULSE_EVENTS").await.len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_fill_the_memory_keep_others_out_until_they_are_gone() {
    let ingest = "body_memory_mib = 1\nread_within_ms = 60000".to_owned();
    let door = Door::start(DoorSetup { ingest, ..DoorSetup::default() }).await.ready().await;
    let head = |length: &str| {
        let request = String::from_utf8(by_token(b"")).unwrap();
        request.replace("content-length: 0", length).into_bytes()
    };
    let large = |n: usize| {
        format!(r#"{{"event":{{"type":"x","n":{n},"v":"{}"}}}}"#, "x".repeat(400_000)).into_bytes()
    };

    // A body that is announced and does not come takes nothing.
    let mut slow = Connection::open(&door.address()).unwrap();
    slow.send(&head("content-length: 1048576")).unwrap();
    wait_until("it is waited for", PATIENCE, async || {
        door.metric("ingest_webhooks_in_flight", &[]) >= 1.0
    })
    .await;
    assert_eq!(door.send(&[&by_token(&large(1))]).status, 200);

    slow.send(&[b'x'; 700_000]).unwrap();
    let shed = || door.metric("ingest_webhooks_total", &[("reason", "no_room")]);
    wait_until("its bytes are there", PATIENCE, async || {
        door.metric("ingest_body_bytes", &[]) >= 700_000.0
    })
    .await;
    let answer = door.send(&[&by_token(&large(3))]);
    assert_eq!((answer.status, answer.body.as_str()), (503, ""), "{answer:?}");
    assert!(answer.head.contains("retry-after:"), "{answer:?}");
    let unannounced =
        [&head("transfer-encoding: chunked")[..], b"61a80\r\n", &[b'x'; 400_000], b"\r\n0\r\n\r\n"];
    assert_eq!(door.send(&[&unannounced.concat()]).status, 503);
    assert_eq!(shed(), 2.0);
    assert_eq!(door.send(&[&by_token(&event(4))]).status, 200, "a small one has room");

    drop(slow);
    wait_until("there is room again", PATIENCE, async || {
        door.metric("ingest_body_bytes", &[]) == 0.0
    })
    .await;
    assert_eq!(door.send(&[&by_token(&large(5))]).status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_large_rubbish_does_not_fill_the_quarantine() {
    let ingest = "quarantine_kib_per_second = 16".to_owned();
    let door = Door::start(DoorSetup { ingest, ..DoorSetup::default() }).await.ready().await;
    let kept = |outcome| door.metric("ingest_quarantined_total", &[("outcome", outcome)]);
    assert_eq!(door.send(&[&signed(b"worth mending")]).status, 400);
    let rubbish = vec![b'x'; 1024 * 1024];
    for _ in 0..10 {
        assert_eq!(door.send(&[&signed(&rubbish)]).status, 400);
    }
    // What the first of them took is paid for in a minute and more.
    assert_eq!((kept("stored"), kept("too_many_bytes")), (2.0, 9.0));
    assert_eq!(door.send(&[&by_token(b"another source")]).status, 400);
    assert_eq!(door.messages("LEADPULSE_QUARANTINE").await.len(), 3);
}

const HALF_OPEN: usize = 1000;
const SAMPLES: usize = 301;

/// The medians of a good client's times at a door that is beset and at one that is not. The two are asked
/// in turn, so whatever else this machine does falls on both.
fn medians(beset: &Door, free: &Door) -> [Duration; 2] {
    let sample = |door: &Door, n: usize| {
        let id = format!("{n}at{:?}", Instant::now());
        let event = format!(r#"{{"event":{{"type":"x","id":"{id}"}}}}"#);
        let began = Instant::now();
        assert_eq!(door.send(&[&by_token(event.as_bytes())]).status, 200);
        began.elapsed()
    };
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..SAMPLES {
        times[0].push(sample(beset, n));
        times[1].push(sample(free, n));
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[SAMPLES / 2]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_half_open_connections_do_not_slow_a_good_client() {
    let scratch = Scratch::new("beset").unwrap();
    let nats = start_nats(scratch.path()).unwrap();
    let setup = DoorSetup {
        nats_url: Some(nats.url().to_owned()),
        no_nats: true,
        ingest: "read_within_ms = 60000".into(),
        ..DoorSetup::default()
    };
    let beset = Door::start(setup.clone()).await.ready().await;
    let free = Door::start(setup).await.ready().await;
    let half_open: Vec<_> = (0..HALF_OPEN)
        .map(|n| {
            let mut connection = Connection::open(&beset.address()).unwrap();
            // Some say nothing, some stop in the head, some in the body.
            let begun: &[u8] = match n % 3 {
                0 => b"",
                1 => b"POST /webhooks/monday/demo-crm HTTP/1.1\r\nhost:",
                _ => b"POST /webhooks/monday/demo-crm HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{",
            };
            connection.send(begun).unwrap();
            connection
        })
        .collect();
    wait_until("all are there", PATIENCE, async || {
        beset.metric("ingest_webhooks_in_flight", &[]) >= (HALF_OPEN / 3) as f64
    })
    .await;
    medians(&beset, &free);
    // A machine that does something else may spoil a measurement, but not three of them in the same way.
    let slowed = (0..3).all(|_| {
        let [median_beset, median_free] = medians(&beset, &free);
        eprintln!(
            "median {median_free:?} alone, {median_beset:?} beside {HALF_OPEN} half-open ones"
        );
        median_beset > median_free * 2
    });
    assert!(half_open.iter().all(Connection::is_waiting), "they were not half-open all the time");
    assert!(!slowed, "a good client is slowed to less than half");
}

/// The soft limit of many systems is far below `ingest.max_connections`.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_connections_are_let_in_as_are_allowed_whatever_the_soft_limit_of_files() {
    let usual = getrlimit(Resource::Nofile);
    // What is started now has it, too.
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..usual }).unwrap();
    let door = Door::start(DoorSetup::default()).await.ready().await;
    setrlimit(Resource::Nofile, usual).unwrap();
    let open: Vec<Connection> =
        (0..600).map(|_| Connection::open(&door.address()).unwrap()).collect();
    assert_eq!(door.send(&[&signed(&event(1))]).status, 200);
    assert_eq!(open.len(), 600);
    assert!(!door.ingest.log_text().contains("accept failed"));
}
