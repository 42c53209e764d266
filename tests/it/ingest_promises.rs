//! What the record is promised to be: read back, said, required, and watched while ingest runs.

use std::{fs, time::Duration};

use async_nats::jetstream::{
    self,
    stream::{Config, PersistenceMode},
};
use leadpulse_nats::streams;
use serde_json::{Value, json};
use tests::{
    door::{Door, DoorSetup, start_nats_with},
    harness::{PATIENCE, run, wait_until},
};
use xtask::servers::{NatsOptions, Scratch, Server, free_port};

use super::{
    hostile::{by_token, signed},
    ingest_operators::said,
};

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_differ_are_shown_and_changed_only_when_asked_twice() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let plan = said(&door.run(&["streams", "plan"]));
    assert!(plan.contains("LEADPULSE_EVENTS: as defined"), "{plan}");

    set_duplicate_window(&door, Duration::from_secs(60)).await;

    let plan = said(&door.run(&["streams", "plan"]));
    assert!(plan.contains("`duplicate_window` is 60000000000 instead of 2700000000000"), "{plan}");
    let refused = door.run(&["streams", "apply"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_refuses_to_start(&door, "duplicates");

    assert_eq!(door.run(&["streams", "apply", "--yes"]).status.code(), Some(0));
    let plan = said(&door.run(&["streams", "plan"]));
    assert!(plan.contains("LEADPULSE_EVENTS: as defined"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_that_is_broken_after_the_start_is_a_503_until_it_is_kept_again() {
    let nats = "require = [\"duplicates\"]".to_owned();
    let mut door = Door::start(DoorSetup { nats, ..DoorSetup::default() }).await.ready().await;
    let event = signed(br#"{"event":{"type":"x"}}"#);
    assert_eq!(door.send(&[&event]).status, 200);

    set_duplicate_window(&door, Duration::from_secs(60)).await;
    assert_not_kept(&door).await;
    // A new connection may be one to another server, and is looked at like the first one.
    let server = door.nats.as_mut().unwrap();
    server.kill9();
    server.restart().unwrap();
    assert_not_kept(&door).await;

    set_duplicate_window(&door, Duration::from_secs(45 * 60)).await;
    wait_until("it is ready again", PATIENCE, async || door.is_ready()).await;
    assert_eq!(door.send(&[&event]).status, 200);
    assert_eq!(door.metric("ingest_streams_lost_total", &[]), 0.0, "it is the stream of before");
}

/// Another stream takes the events, so that ours can't be made: what it acknowledges, no projector reads.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_stream_takes_is_no_200() {
    let foreign = Config {
        name: "OTHER".to_owned(),
        subjects: vec![streams::EVENTS_SUBJECTS.to_owned()],
        ..Config::default()
    };
    let scratch = Scratch::new("foreign").unwrap();
    let nats = start_nats_with(scratch.path(), &NatsOptions::default()).unwrap();
    jetstream_of(nats.url()).await.create_stream(foreign).await.unwrap();
    let nats_url = Some(nats.url().to_owned());
    let door = Door::start(DoorSetup { nats_url, no_nats: true, ..DoorSetup::default() }).await;
    let refused = door.send(&[&signed(br#"{"event":{"type":"x"}}"#)]);
    assert_eq!((refused.status, refused.body.as_str()), (503, ""), "{refused:?}");
    assert!(!door.is_ready());
    let of_reason = &[("reason", "foreign_stream")];
    assert_eq!(door.metric("ingest_webhooks_total", of_reason), 1.0);
}

/// A release is a publish: it takes no broker that the service would not.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_released_to_a_broker_that_breaks_a_promise() {
    let nats = "require = [\"duplicates\"]".to_owned();
    let door = Door::start(DoorSetup { nats, ..DoorSetup::default() }).await.ready().await;
    set_duplicate_window(&door, Duration::from_secs(60)).await;
    let release = door.run(&["quarantine", "release"]);
    assert_eq!(release.status.code(), Some(1));
    let release = said(&release);
    assert!(release.contains("breaks a promise") && release.contains("duplicates"), "{release}");
    set_duplicate_window(&door, Duration::from_secs(45 * 60)).await;
    assert_eq!(door.run(&["quarantine", "release"]).status.code(), Some(0));
}

/// The password in the address of NATS, at the level at which everybody says everything.
#[tokio::test(flavor = "multi_thread")]
async fn the_password_of_the_broker_is_in_no_log() {
    let scratch = Scratch::new("password").unwrap();
    let nats = start_nats_with(scratch.path(), &NatsOptions::default()).unwrap();
    let nats_url = Some(nats.url().replace("nats://", "nats://ingest:hunter2@"));
    let setup = DoorSetup { nats_url, no_nats: true, ..DoorSetup::default() };
    let door = Door::start_with(setup, &[("LEADPULSE_LOG_LEVEL", "trace")]).await.ready().await;
    assert_eq!(door.send(&[&signed(br#"{"event":{"type":"x"}}"#)]).status, 200);
    let log = door.ingest.log_text();
    assert!(log.contains("TRACE") && !log.contains("hunter2"), "the log shows it");
    super::hostile::assert_no_secret_in("the log", &log);
}

async fn assert_not_kept(door: &Door) {
    wait_until("the broken promise is seen", PATIENCE, async || {
        door.get("/health/detailed").body.contains("duplicates: ") && !door.is_ready()
    })
    .await;
    let refused = door.send(&[&signed(br#"{"event":{"type":"x"}}"#)]);
    assert_eq!((refused.status, refused.body.as_str()), (503, ""), "{refused:?}");
    assert!(refused.head.to_lowercase().contains("retry-after:"), "{refused:?}");
    assert_eq!(door.get("/health/liveness").status, 200, "a restart would not mend it");
}

/// A door to a server that was there before, with one setting changed, this stream, and monitoring pages.
async fn door_to(
    (usual, changed): (&str, &str),
    stream: Option<Config>,
) -> (Door, Server, Scratch) {
    let scratch = Scratch::new("promises").unwrap();
    let monitor = free_port().unwrap();
    let mut options = NatsOptions { monitor: Some(monitor), ..NatsOptions::default() };
    let text = fs::read_to_string(&options.conf).unwrap();
    assert!(text.contains(usual), "{usual} is not in {text}");
    options.conf = scratch.path().join("nats.conf");
    fs::write(&options.conf, text.replace(usual, changed)).unwrap();
    let nats = start_nats_with(scratch.path(), &options).unwrap();
    if let Some(stream) = stream {
        jetstream_of(nats.url()).await.create_stream(stream).await.unwrap();
    }
    let nats_url = Some(nats.url().to_owned());
    let nats_lines = format!("monitor = \"http://127.0.0.1:{monitor}\"");
    let setup = DoorSetup { nats: nats_lines, nats_url, no_nats: true, ..DoorSetup::default() };
    (Door::start(setup).await.ready().await, nats, scratch)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_acknowledged_before_it_is_written_breaks_a_promise() {
    let events = streams::events(1).unwrap();
    let hasty = Config { persist_mode: Some(PersistenceMode::Async), ..events };
    let (door, _nats, _scratch) = door_to(("", ""), Some(hasty)).await;
    let broken = &durability(&door)["broken_promises"];
    assert!(broken["persist"].as_str().unwrap().contains("`async`"), "{broken}");
    let plan = said(&door.run(&["streams", "plan"]));
    assert!(plan.contains(r#"`persist_mode` is "async" instead of "default""#), "{plan}");
    assert_refuses_to_start(&door, "persist");
}

#[tokio::test(flavor = "multi_thread")]
async fn how_often_the_disk_is_synced_is_asked_of_the_server_itself() {
    let interval = r#"sync_interval: "5s""#;
    let (door, _nats, _scratch) = door_to(("", ""), None).await;
    let lazy = durability(&door);
    assert!(lazy["summary"].as_str().unwrap().contains("synced every 5 s"), "{lazy}");
    assert!(lazy["broken_promises"]["fsync"].is_string(), "{lazy}");
    assert_refuses_to_start(&door, "fsync");

    let (door, _nats, _scratch) = door_to((interval, "sync_interval: always"), None).await;
    let strict = durability(&door);
    assert_eq!(strict["broken_promises"], json!({}), "{strict}");
    let summary = strict["summary"].as_str().unwrap();
    assert!(summary.contains("synced before each acknowledgement"), "{summary}");
}

fn durability(door: &Door) -> Value {
    let detailed: Value = serde_json::from_str(&door.get("/health/detailed").body).unwrap();
    detailed["facts"]["durability"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_monitoring_page_of_another_server_tells_nothing() {
    let (one, _other, _scratch) = door_to(("", ""), None).await;
    let text = fs::read_to_string(one.folder().join("leadpulse.toml")).unwrap();
    let monitor = text.lines().find(|line| line.starts_with("monitor")).unwrap().to_owned();
    let door = Door::start(DoorSetup { nats: monitor, ..DoorSetup::default() }).await.ready().await;
    let summary = durability(&door)["summary"].to_string();
    assert!(summary.contains("nobody knows how often"), "{summary}");
    assert!(door.ingest.log_text().contains("is the monitoring page of another server"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_only_a_mebibyte_breaks_a_promise() {
    let (door, _nats, _scratch) = door_to(("max_payload: 2MB", ""), None).await;
    let durability = durability(&door);
    let fault = durability["broken_promises"]["payload"].as_str().unwrap();
    assert!(fault.contains("1048576") && fault.contains("`max_payload`"), "{fault}");
    let summary = durability["summary"].as_str().unwrap();
    assert!(summary.contains("messages of up to 1024 KiB"), "{summary}");
    assert!(door.ingest.log_text().contains(summary), "the log does not say it");
    assert_refuses_to_start(&door, "payload");

    // The event is a legal one: monday.com sends it again, and meanwhile the server can be mended.
    let (head, tail) = (r#"{"event":{"type":"x","v":""#, r#""}}"#);
    let body = format!("{head}{}{tail}", "x".repeat((1 << 20) - head.len() - tail.len()));
    let answer = door.send(&[&by_token(body.as_bytes())]);
    assert_eq!((answer.status, answer.body.as_str()), (503, ""), "{answer:?}");
    let named = &[("reason", "server_max_payload")];
    assert_eq!(door.metric("ingest_webhooks_total", named), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_gone_is_made_again_and_told_as_a_loss() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let lost = || door.metric("ingest_streams_lost_total", &[("stream", streams::EVENTS)]);
    let post = |n: u32| {
        let event = format!(r#"{{"event":{{"type":"x","n":{n}}}}}"#);
        door.send(&[&by_token(event.as_bytes())]).status
    };
    let told = || door.ingest.log_text().contains("the stream LEADPULSE_EVENTS is gone");
    assert_eq!(post(1), 200);
    assert!(lost() == 0.0 && !told(), "the first creation is no loss");

    let jetstream = jetstream_of(&door.nats_url).await;
    jetstream.delete_stream(streams::EVENTS).await.unwrap();
    wait_until("the loss is noticed", PATIENCE, async || lost() == 1.0).await;
    assert!(told(), "the log does not tell it");
    let detailed = door.get("/health/detailed").body;
    assert!(
        detailed.contains("lost_record") && detailed.contains("projector import"),
        "{detailed}"
    );
    wait_until("service goes on", PATIENCE, async || post(2) == 200).await;

    // Another one under its name is another one, whoever made it.
    jetstream.delete_stream(streams::EVENTS).await.unwrap();
    jetstream.create_stream(streams::events(1).unwrap()).await.unwrap();
    wait_until("that loss is noticed, too", PATIENCE, async || lost() == 2.0).await;
    assert_eq!(door.metric("ingest_streams_lost_total", &[]), 2.0, "the quarantine is not lost");
}

async fn jetstream_of(url: &str) -> jetstream::Context {
    jetstream::new(async_nats::connect(url).await.unwrap())
}

async fn set_duplicate_window(door: &Door, window: Duration) {
    let jetstream = jetstream_of(&door.nats_url).await;
    let mut stream = jetstream.get_stream("LEADPULSE_EVENTS").await.unwrap();
    let config = stream.info().await.unwrap().config.clone();
    let changed = Config { duplicate_window: window, ..config };
    jetstream.update_stream(&changed).await.unwrap();
}

/// Starts another `ingest` with the door's configuration and a promise that it requires.
fn assert_refuses_to_start(door: &Door, promise: &str) {
    let text = fs::read_to_string(door.folder().join("leadpulse.toml")).unwrap();
    let path = door.folder().join("requiring.toml");
    fs::write(&path, text.replace("[nats]", &format!("[nats]\nrequire = [\"{promise}\"]")))
        .unwrap();
    let config = [("LEADPULSE_CONFIG".to_owned(), path.display().to_string())];
    let refused = run("ingest", &[], &[door.environment(), &config].concat()).unwrap();
    assert_eq!(refused.status.code(), Some(1), "it started against a required promise");
    let said = said(&refused);
    assert!(said.contains("`nats.require`") && said.contains(&format!("{promise}:")), "{said}");
}
