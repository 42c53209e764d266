//! Whatever is thrown at the door, over raw sockets: each request has its status, its metric and its entry
//! in the quarantine, and what is an event at all is stored.

mod body;
mod head;
mod proof;
mod request;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use tests::{
    door::{Door, DoorSetup, Message},
    harness::{PATIENCE, wait_until},
};
use tokio::time::timeout;

use request::{Case, Kept};
pub(super) use request::{assert_no_secret_in, authorized, by_token, mac, post, signed};

/// Short, so that a trickle is cut off within the test; and everything that is refused is kept.
const QUICK: &str = "read_within_ms = 1500\nquarantine_kib_per_second = 1048576";

#[tokio::test(flavor = "multi_thread")]
async fn every_hostile_request_has_its_status_its_metric_and_its_place() {
    let setup = DoorSetup { ingest: QUICK.into(), ..DoorSetup::default() };
    let door = Door::start(setup).await.ready().await;
    let cases: Vec<Case> = [proof::cases(), body::cases(), head::cases()].concat();
    assert!(cases.len() >= 80, "{} cases", cases.len());

    let mut wrong = Vec::new();
    let (mut quarantined, mut stored) = (Vec::new(), 0);
    for case in &cases {
        let before = door.metric(case.metric, case.labels);
        let parts: Vec<&[u8]> = case.parts.iter().map(Vec::as_slice).collect();
        let answer = door.send(&parts);
        if answer.status != case.status {
            wrong.push(format!("{}: {answer:?} instead of {}", case.name, case.status));
        }
        // Some are counted when the connection is given up, a moment after the answer.
        let one_more = async || door.metric(case.metric, case.labels) >= before + 1.0;
        let counted = wait_until("it is counted", PATIENCE, one_more);
        if timeout(Duration::from_secs(2), counted).await.is_err() {
            wrong.push(format!("{}: not counted as {:?}", case.name, case.labels));
        }
        if matches!(case.status, 401 | 404 | 503) && !answer.body.is_empty() {
            wrong.push(format!("{}: a reason is told: {}", case.name, answer.body));
        }
        let allowed =
            if case.name == "a POST to a page" { "allow: get,head" } else { "allow: post" };
        if case.status == 405 && !answer.head.contains(allowed) {
            wrong.push(format!("{}: it does not say what is allowed: {answer:?}", case.name));
        }
        match case.kept {
            Kept::Stored => stored += 1,
            Kept::Quarantined => quarantined.push((case.name, case.reason())),
            Kept::Nowhere => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    let entries = door.messages("LEADPULSE_QUARANTINE").await;
    let reason_of = |message: &Message| {
        let entry: Value = serde_json::from_str(&message.text).unwrap();
        entry["reason"].as_str().unwrap().to_owned()
    };
    for message in entries.values().filter(|message| reason_of(message) == "no_route") {
        let entry: Value = serde_json::from_str(&message.text).unwrap();
        assert_eq!(entry["source"], "", "in a wrong address a token may stand anywhere");
    }
    let found: Vec<_> = entries.values().map(reason_of).collect();
    let expected: Vec<_> = quarantined.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(found, expected, "{quarantined:#?}");
    let events = door.messages("LEADPULSE_EVENTS").await;
    assert_eq!(events.len(), stored, "what was refused is in the stream, or a stored one is not");
    assert_eq!(door.metric("ingest_panics_total", &[]), 0.0);
    request::assert_no_secret(&door, &entries, &events);
    assert!(door.is_ready());
}

/// Anybody can send what is no request, and nobody can release it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_rubbish_has_its_bound_in_the_quarantine_and_keeps_no_webhook_out_of_it() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let began = Instant::now();
    for _ in 0..200 {
        assert_eq!(door.send(&[b"rubbish\r\n\r\n"]).status, 400);
    }
    // Large ones, too, which take nothing of what there is for the bytes of webhooks.
    let large = format!("POST /x HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(30_000));
    for _ in 0..20 {
        assert_eq!(door.send(&[large.as_bytes()]).status, 404);
    }
    let webhook = request::post("/webhooks/monday/nobody", &[], &request::event("misspelt"));
    assert_eq!(door.send(&[&webhook]).status, 404);
    let counted = || door.metric("ingest_webhooks_total", &[("reason", "head_malformed")]);
    wait_until("all of it is counted", PATIENCE, async || counted() >= 200.0).await;
    // A burst of two seconds, and then twenty a second.
    let most = 41.0 + 20.0 * began.elapsed().as_secs_f64();
    let kept = door.metric("ingest_quarantined_total", &[("outcome", "stored")]);
    let left_out = door.metric("ingest_quarantined_total", &[("outcome", "too_many")]);
    assert!((2.0..=most + 1.0).contains(&kept), "{kept} of at most {most}, and a webhook");
    assert_eq!(left_out, 221.0 - kept);
    let entries = door.messages("LEADPULSE_QUARANTINE").await;
    assert!(entries.values().any(|entry| entry.text.contains("unknown_source")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_sends_too_fast_is_told_so_and_the_others_are_not() {
    let setup = DoorSetup { by_token: "rate_per_second = 5".into(), ..DoorSetup::default() };
    let door = Door::start(setup).await.ready().await;
    let mut statuses = Vec::new();
    for n in 0..30 {
        let event = format!(r#"{{"event":{{"type":"x","n":{n}}}}}"#);
        let answer = door.send(&[&request::by_token(event.as_bytes())]);
        if answer.status == 429 {
            assert!(answer.head.contains("retry-after: 1"), "{answer:?}");
        }
        statuses.push(answer.status);
    }
    let allowed = statuses.iter().filter(|status| **status == 200).count();
    assert!((10..=25).contains(&allowed), "{statuses:?}");
    assert!(statuses.contains(&429));
    assert_eq!(door.send(&[&request::signed(br#"{"event":{"type":"x"}}"#)]).status, 200);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!(door.metric("ingest_webhooks_total", &[("reason", "too_many")]), refused as f64);
    // They were good: nothing of them is lost.
    assert_eq!(door.messages("LEADPULSE_QUARANTINE").await.len(), refused);
    let done = door.run(&["quarantine", "release", "--reason", "too_many"]);
    let done = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.contains(&format!("{refused} released, 0 known already")), "{done}");
    assert_eq!(door.messages("LEADPULSE_EVENTS").await.len(), 31);
}

/// The time of an answer must not tell which keys exist: not under a large body either, which is kept whole
/// of a known source and cut of a stranger, nor under a scheme that has to read all of it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_source_takes_as_long_as_a_wrong_proof_whatever_the_scheme_and_the_body() {
    let setup = DoorSetup { ingest: QUICK.into(), ..DoorSetup::default() };
    let door = Door::start(setup).await.ready().await;
    let forged = request::jwt_with("wrong-secret");
    let wrong_mac = format!("sha256={}", "0".repeat(64));
    let wrong = [("authorization", forged.as_str()), ("x-hub-signature-256", wrong_mac.as_str())];
    let small = br#"{"event":{"type":"x"}}"#.to_vec();
    let large =
        format!(r#"{{"event":{{"type":"x","v":"{}"}}}}"#, "x".repeat(1_000_000)).into_bytes();
    for body in [small, large] {
        let of = |path: &str, expected: u16| {
            let request = request::post(&format!("/webhooks/monday/{path}"), &wrong, &body);
            let began = Instant::now();
            assert_eq!(door.send(&[&request]).status, expected, "{path}");
            began.elapsed()
        };
        let round = || {
            let mut took: BTreeMap<&str, Duration> = BTreeMap::new();
            for _ in 0..9 {
                for path in ["demo-crm", "by-mac", "by-token/wrong", "nobody", "nobody/wrong"] {
                    let expected = if path.starts_with("nobody") { 404 } else { 401 };
                    let least = took.entry(path).or_insert(Duration::MAX);
                    *least = of(path, expected).min(*least);
                }
            }
            took
        };
        // What else the machine does only adds to the least that each takes; and it may do so in a whole round.
        let rounds = [round(), round(), round()];
        let apart = |took: &BTreeMap<&str, Duration>| {
            took.values().max().zip(took.values().min()).map(|(most, least)| *most - *least)
        };
        let closest = rounds.iter().filter_map(apart).min().unwrap();
        assert!(closest < Duration::from_millis(3), "{} bytes: {rounds:?}", body.len());
    }
}
