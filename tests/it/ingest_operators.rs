//! What an operator does with `ingest`: mend a secret, let the refused in, look from another address.

use serde_json::Value;
use tests::{
    door::{Door, DoorSetup, MAC_SECRET, sum_of},
    harness::{Claims, PATIENCE, SECRET, eventually, sign_jwt, wait_until},
    wire::{Connection, exchange},
};

use super::hostile::{authorized, by_token, mac, post, signed};

pub(super) fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_loses_nothing_it_is_mended_without_a_restart_and_the_refused_are_released()
{
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let right = r#"secret = "env:TEST_SIGNING_SECRET""#;
    let wrong = r#"secret = "env:TEST_MAC_SECRET""#;
    let read_again = || door.metric("ingest_reloads_total", &[("outcome", "done")]);

    door.edit(right, wrong);
    wait_until("the wrong secret is read", PATIENCE, async || read_again() >= 1.0).await;
    let (one, two) = (br#"{"event":{"type":"x","n":1}}"#, br#"{"event":{"type":"x","n":2}}"#);
    assert_eq!(door.send(&[&signed(one)]).status, 401);
    assert_eq!(door.send(&[&signed(two)]).status, 401);
    assert_eq!(door.send(&[&by_token(one)]).status, 200, "other sources go on");

    door.edit(wrong, right);
    wait_until("the right secret is read", PATIENCE, async || read_again() >= 2.0).await;
    assert_eq!(door.send(&[&signed(two)]).status, 200);

    let plan = said(&door.run(&["quarantine", "release", "--dry-run", "--since", "1h"]));
    assert!(plan.contains("2 would be released"), "{plan}");
    assert_eq!(door.messages("LEADPULSE_EVENTS").await.len(), 2, "a dry run changed the stream");
    let done = said(&door.run(&["quarantine", "release", "--reason", "auth_signature"]));
    assert!(done.contains("0 released, 2 known already"), "{done}");
    assert!(door.messages("LEADPULSE_QUARANTINE").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_wrong_stays_in_the_quarantine() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let event = br#"{"event":{"type":"x"}}"#;
    let forged = super::hostile::authorized("forged", event);
    assert_eq!(door.send(&[&forged]).status, 401);
    assert_eq!(door.send(&[&signed(b"{}")]).status, 400);
    let done = said(&door.run(&["quarantine", "release"]));
    assert!(done.contains("0 released, 0 known already, 2 still refused"), "{done}");
    assert_eq!(door.messages("LEADPULSE_QUARANTINE").await.len(), 2);
    let listed = said(&door.run(&["quarantine", "list", "--source", "demo-crm"]));
    assert!(listed.contains("auth_malformed") && listed.contains("2 entries"), "{listed}");
    let none = said(&door.run(&["quarantine", "list", "--source", "by-token"]));
    assert!(none.contains("0 entries"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_of_a_signed_body_is_mended_and_the_refused_are_released() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let right = r#"secret = "env:TEST_MAC_SECRET""#;
    let wrong = r#"secret = "env:TEST_TOKEN""#;
    let read_again = || door.metric("ingest_reloads_total", &[("outcome", "done")]);
    door.edit(right, wrong);
    wait_until("the wrong secret is read", PATIENCE, async || read_again() >= 1.0).await;
    let event = br#"{"event":{"type":"x"}}"#;
    assert_eq!(door.send(&[&by_mac(&[&mac_of(event)], event)]).status, 401);
    door.edit(wrong, right);
    wait_until("the right secret is read", PATIENCE, async || read_again() >= 2.0).await;
    let done = said(&door.run(&["quarantine", "release"]));
    assert!(done.contains("1 released, 0 known already, 0 still refused"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_for_two_proofs_is_not_released_for_one_of_them() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let good = sign_jwt(&Claims::default(), SECRET);
    let event = |n: u8| format!(r#"{{"event":{{"type":"x","n":{n}}}}}"#).into_bytes();
    let twice = |first: &[u8], second: &[u8], event: &[u8]| {
        let one = String::from_utf8(authorized("@", event)).unwrap();
        let (before, after) = one.split_once("authorization: @").unwrap();
        let (name, rest) = (b"authorization: ", after.as_bytes());
        [before.as_bytes(), name, first, b"\r\n", name, second, rest].concat()
    };
    let requests = [
        twice(good.as_bytes(), b"x", &event(1)),
        twice(b"x", good.as_bytes(), &event(2)),
        twice(good.as_bytes(), b"\xff\xfe", &event(3)),
        by_mac(&[&mac_of(&event(4)), "x"], &event(4)),
        by_mac(&["x", &mac_of(&event(5))], &event(5)),
    ];
    for request in &requests {
        assert_eq!(door.send(&[request]).status, 401);
    }
    let done = said(&door.run(&["quarantine", "release"]));
    assert!(done.contains("0 released, 0 known already, 5 still refused"), "{done}");
    assert!(done.contains("still refused: auth_malformed"), "{done}");
    assert!(door.messages("LEADPULSE_EVENTS").await.is_empty());
}

fn mac_of(body: &[u8]) -> String {
    format!("sha256={}", hex::encode(mac(MAC_SECRET.as_bytes(), body)))
}

fn by_mac(signatures: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: Vec<_> = signatures.iter().map(|value| ("x-hub-signature-256", *value)).collect();
    post("/webhooks/monday/by-mac", &headers, body)
}

/// Refuses an event for a wrong secret, under this other setting too, and gives what a release says then.
async fn released_after(door: &Door, (from, to): (&str, &str)) -> String {
    let right = r#"secret = "env:TEST_SIGNING_SECRET""#;
    let wrong = r#"secret = "env:TEST_MAC_SECRET""#;
    let read_again = || door.metric("ingest_reloads_total", &[("outcome", "done")]);
    door.edit(from, to);
    door.edit(right, wrong);
    wait_until("both are read", PATIENCE, async || {
        let event = signed(br#"{"event":{"type":"x","n":0}}"#);
        read_again() >= 1.0 && door.send(&[&event]).status == 401
    })
    .await;
    let reads = read_again();
    assert_eq!(door.send(&[&signed(br#"{"event":{"type":"x","n":1}}"#)]).status, 401);
    door.edit(wrong, right);
    wait_until("the right secret is read", PATIENCE, async || read_again() > reads).await;
    said(&door.run(&["quarantine", "release"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_quarantine_counts_from_the_next_reload_on() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let key = |name: &str| format!("quarantine_key = \"env:{name}\"");
    let (old, new) = (key("TEST_QUARANTINE_KEY"), key("TEST_TOKEN"));
    let done = released_after(&door, (&old, &new)).await;
    assert!(done.contains("0 still refused, 0 not stored"), "{done}");
    assert_eq!(door.messages("LEADPULSE_EVENTS").await.len(), 2);

    assert_eq!(door.send(&[&signed(b"{}")]).status, 400);
    door.edit(&new, &old);
    let done = said(&door.run(&["quarantine", "release"]));
    assert!(done.contains("sealed under another `ingest.quarantine_key`"), "{done}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_no_proof_is_kept_and_a_release_says_so() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let key = r#"quarantine_key = "env:TEST_QUARANTINE_KEY""#;
    let done = released_after(&door, (key, "")).await;
    assert!(done.contains("set `ingest.quarantine_key` to keep proofs sealed"), "{done}");
    assert!(done.contains("0 released"), "{done}");
    let entries = door.messages("LEADPULSE_QUARANTINE").await;
    assert!(entries.values().all(|entry| entry.text.contains(r#""sealed":null"#)), "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_for_one_org_is_not_released_for_another() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let event = br#"{"event":{"type":"x"}}"#;
    let right = r#"secret = "env:TEST_MAC_SECRET""#;
    door.edit(right, r#"secret = "env:TEST_TOKEN""#);
    wait_until("the wrong secret is read", PATIENCE, async || {
        door.send(&[&by_mac(&[&mac_of(event)], event)]).status == 401
    })
    .await;
    door.edit(r#"secret = "env:TEST_TOKEN""#, right);
    door.edit(r#"id = "demo""#, r#"id = "another""#);
    let done = said(&door.run(&["quarantine", "release"]));
    assert!(done.contains("it came for the org `demo`; its source is of `another` now"), "{done}");
    assert!(door.messages("LEADPULSE_EVENTS").await.len() <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_can_not_be_read_keeps_the_others_from_nobody() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let nats = async_nats::connect(door.nats_url.as_str()).await.unwrap();
    let jetstream = async_nats::jetstream::new(nats);
    for rubbish in ["rubbish", r#"{"v":99}"#] {
        let published = jetstream.publish("leadpulse.quarantine.x.rubbish", rubbish.into()).await;
        published.unwrap().await.unwrap();
    }
    assert_eq!(door.send(&[&signed(b"{}")]).status, 400);
    let listed = door.run(&["quarantine", "list"]);
    assert_eq!(listed.status.code(), Some(1));
    let listed = said(&listed);
    assert!(listed.contains("not_an_event") && listed.contains("1: left out"), "{listed}");
    assert!(listed.contains("a newer version of ingest has written it"), "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_want_to_know_can_have_an_address_of_its_own() {
    let ingest = "admin_listen = \"127.0.0.1:0\"".to_owned();
    let mut door = Door::start(DoorSetup { ingest, ..DoorSetup::default() }).await.ready().await;
    let admin = eventually("it says where", PATIENCE, async || {
        let log = door.ingest.log_text();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut listening = lines.filter(|line| line["fields"]["message"] == "listening");
        Some(listening.nth(1)?["fields"]["addr"].as_str()?.to_owned())
    })
    .await;
    let get = |address: &str, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        exchange(address, &[request.as_bytes()])
    };
    let public = door.address();
    for path in ["/health", "/health/liveness", "/health/readiness"] {
        assert_eq!((get(&public, path).status, get(&admin, path).status), (200, 200), "{path}");
    }
    for path in ["/health/detailed", "/metrics"] {
        assert_eq!((get(&public, path).status, get(&admin, path).status), (404, 200), "{path}");
    }
    let event = br#"{"event":{"type":"x"}}"#;
    assert_eq!(exchange(&admin, &[&by_token(event)]).status, 404, "it takes no webhooks");

    // It is there until the last webhook is answered.
    let request = by_token(event);
    let (begun, rest) = request.split_at(request.len() - 5);
    let mut connection = Connection::open(&public).unwrap();
    connection.send(begun).unwrap();
    wait_until("the request is begun", PATIENCE, async || {
        sum_of(&get(&admin, "/metrics").body, "ingest_webhooks_in_flight", &[]) >= 1.0
    })
    .await;
    door.ingest.signal("TERM");
    wait_until("the end is seen", PATIENCE, async || {
        let readiness = get(&admin, "/health/readiness");
        readiness.status == 503 && readiness.body.contains("draining")
    })
    .await;
    assert_eq!(connection.ask(rest).status, 200);
    let ended = door.ingest.ended(PATIENCE).await;
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}
