//! Sources and secrets change while ingest runs, and no connection notices.

use std::{fs, path::PathBuf};

use tests::{
    door::{Door, DoorSetup},
    harness::{Claims, PATIENCE, sign_jwt, wait_until},
    wire::Connection,
};

use super::hostile::{authorized, by_token, signed};

/// The request without its wish to end the connection.
fn kept_alive(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(request.to_vec()).unwrap();
    text.replace("connection: close\r\n", "").into_bytes()
}

fn event(n: u32) -> Vec<u8> {
    format!(r#"{{"event":{{"type":"x","n":{n}}}}}"#).into_bytes()
}

async fn wait_for_reload(door: &Door, count: f64) {
    wait_until("the configuration is read again", PATIENCE, async || {
        door.metric("ingest_reloads_total", &[("outcome", "done")]) >= count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_connection_and_its_request_in_flight_live_through_a_sighup() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let mut connection = Connection::open(&door.address()).unwrap();
    assert_eq!(connection.ask(&kept_alive(&signed(&event(1)))).status, 200);

    let request = kept_alive(&signed(&event(2)));
    let (begun, rest) = request.split_at(request.len() - 5);
    connection.send(begun).unwrap();
    wait_until("the request is begun", PATIENCE, async || {
        door.metric("ingest_webhooks_in_flight", &[]) >= 1.0
    })
    .await;
    door.ingest.signal("HUP");
    wait_for_reload(&door, 1.0).await;
    assert_eq!(connection.ask(rest).status, 200, "the request in flight was dropped");

    assert_eq!(connection.ask(&kept_alive(&signed(&event(3)))).status, 200);
    assert_eq!(door.messages("LEADPULSE_EVENTS").await.len(), 3);
    assert!(door.ingest.log_text().contains(r#""cause":"SIGHUP""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secrets_file_that_changes_counts_from_then_on_on_the_same_connection() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let file = write_secret(&door, "the first secret");
    let reference = format!("secret = \"file:{}\"", file.display());
    door.edit(r#"secret = "env:TEST_SIGNING_SECRET""#, &reference);
    wait_for_reload(&door, 1.0).await;
    let mut connection = Connection::open(&door.address()).unwrap();
    let mut post = |secret: &str, n| {
        let token = sign_jwt(&Claims::default(), secret);
        connection.ask(&kept_alive(&authorized(&token, &event(n)))).status
    };
    assert_eq!((post("the first secret", 1), post("the second one", 2)), (200, 401));

    write_secret(&door, "the second one");
    wait_for_reload(&door, 2.0).await;
    assert_eq!((post("the first secret", 3), post("the second one", 4)), (401, 200));
}

/// A mounted secret is replaced as a whole, so that nobody reads half of it.
fn write_secret(door: &Door, secret: &str) -> PathBuf {
    let (file, new) = (door.folder().join("secret"), door.folder().join("secret.new"));
    fs::write(&new, secret).unwrap();
    fs::rename(new, &file).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_missing_is_waited_for_while_the_old_ones_stay() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let reference = format!("secret = \"file:{}\"", door.folder().join("secret").display());
    door.edit(r#"secret = "env:TEST_TOKEN""#, &reference);
    wait_until("the missing file is noticed", PATIENCE, async || {
        door.metric("ingest_reloads_total", &[("outcome", "refused")]) >= 1.0
    })
    .await;
    assert_eq!(door.send(&[&by_token(&event(1))]).status, 200, "the old token counts");
    write_secret(&door, "another token of a source");
    wait_for_reload(&door, 1.0).await;
    assert_eq!(door.send(&[&by_token(&event(2))]).status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_file_changes_nothing_and_is_reported() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    door.edit("[[orgs]]", "[[orgs]");
    wait_until("the broken file is seen", PATIENCE, async || {
        door.metric("ingest_reloads_total", &[("outcome", "refused")]) >= 1.0
    })
    .await;
    assert_eq!(door.send(&[&signed(br#"{"event":{"type":"x"}}"#)]).status, 200);
    assert!(door.ingest.log_text().contains("the old sources and secrets stay"));
}
