use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};
use tests::harness::{PATIENCE, Projection, Setup, create_stream, eventually, wait_until};

use super::{history, json, last_audit, operate, refused, setup};

/// The cures that `status` names.
fn cures(status: &Value) -> Vec<String> {
    let findings = status["findings"].as_array().unwrap();
    findings.iter().map(|finding| finding["cure"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn status_says_that_all_is_well_and_what_to_type_when_it_is_not() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(10, 200, 31)).await;
    projection.settle().await;
    let status = json(&projection, 0, &["status"]);
    assert_eq!(status["stream"]["last_seq"], projection.last_seq());
    assert_eq!(status["projection"]["applied_seq"], projection.last_seq());
    assert_eq!(status["projection"]["lanes"].as_array().unwrap().len(), 2);
    assert_eq!(status["projection"]["owner"]["alive"], true);
    assert_eq!(status["lag"], json!({ "events": 0, "seconds": 0.0 }));
    assert_eq!(status["stream"]["consumers"][0]["description"], "leadpulse projector");
    assert!(status["rates"]["applied_per_second"].is_number());
    let text = operate(&projection, &["status"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("all is well"));

    assert_eq!(status["stream"]["consumers"][0]["abandoned"], false);

    // Dead: the lag is still told, in events and in seconds.
    projection.projector.kill9();
    projection.publish(&history(10, 100, 32)).await;
    let status = eventually("the lease ends", PATIENCE, async || {
        let output = operate(&projection, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).ok()?;
        let gone = status["projection"]["owner"]["alive"] == false;
        (gone && output.status.code() == Some(1)).then_some(status)
    })
    .await;
    assert!(status["lag"]["events"].as_u64().unwrap() > 50);
    assert!(status["lag"]["seconds"].as_f64().unwrap() > 0.0);
    assert!(cures(&status).iter().any(|cure| cure.starts_with("start `projector`")), "{status}");
    let text = eventually("the dead reader's consumer is told apart", PATIENCE, async || {
        let output = operate(&projection, &["status"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("1 that nobody reads").then_some(text)
    })
    .await;
    assert!(!text.contains("leadpulse projector"), "{text}");

    projection.ground.nats.kill9();
    let status = json(&projection, 1, &["status"]);
    assert!(status["stream"].is_null() && status["projection"].is_object(), "{status}");
    assert!(cures(&status)[0].contains("nats-server"), "{status}");
}

#[tokio::test]
async fn a_pause_holds_within_a_second_survives_a_restart_and_is_lifted() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(10, 100, 33)).await;
    projection.settle().await;
    let said = refused(&projection, 2, &["pause", "--reason", "moving"]);
    assert!(said.contains("--yes"), "{said}");
    let started = std::time::Instant::now();
    let paused = json(&projection, 0, &["pause", "--reason", "moving", "--yes", "--as", "dana"]);
    assert!(started.elapsed().as_secs() < 3, "it took {:?}", started.elapsed());
    assert_eq!((&paused["paused_by"], &paused["reason"]), (&json!("dana"), &json!("moving")));
    let before = projection.leads().await;
    projection.publish(&history(10, 100, 34)).await;
    projection.projector.kill_and_restart();
    let url = format!("{}/health/detailed", projection.projector.url());
    wait_until("health shows the pause", PATIENCE, async || match reqwest::get(&url).await {
        Ok(answer) => answer.text().await.is_ok_and(|text| text.contains("paused by dana")),
        Err(_) => false,
    })
    .await;
    let status = json(&projection, 1, &["status"]);
    assert_eq!(status["projection"]["paused"]["paused_by"], "dana");
    assert!(cures(&status).contains(&"projector resume".to_owned()));
    assert_eq!(projection.leads().await, before, "nothing is applied in a pause");

    let audit = last_audit(&projection);
    assert_eq!((&audit["command"], &audit["who"]), (&json!("pause"), &json!("dana")));
    assert_eq!((&audit["reason"], &audit["succeeded"]), (&json!("moving"), &json!(true)));
    json(&projection, 0, &["resume", "--reason", "moved"]);
    projection.check().await;
    let audit = last_audit(&projection);
    assert_eq!((&audit["command"], &audit["reason"]), (&json!("resume"), &json!("moved")));
}

#[tokio::test]
async fn the_position_is_moved_only_without_an_owner_and_from_where_it_is() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(10, 200, 35)).await;
    projection.settle().await;
    let last = projection.last_seq().to_string();
    let shown = json(&projection, 0, &["checkpoint", "show"]);
    assert_eq!(shown["applied_seq"], projection.last_seq());
    let set = |to: &'static str, expect: &str| {
        let words = ["checkpoint", "set", to, "--expect", expect, "--reason", "test", "--yes"];
        words.map(str::to_owned)
    };
    let words = |owned: &[String]| owned.iter().map(String::clone).collect::<Vec<_>>();
    let run = |owned: [String; 8], code| {
        let words = words(&owned);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refused(&projection, code, &words)
    };
    assert!(run(set("0", &last), 1).contains("projector pause"), "an owner is alive");
    let audit = last_audit(&projection);
    assert_eq!((&audit["command"], &audit["succeeded"]), (&json!("checkpoint set"), &json!(false)));

    json(&projection, 0, &["pause", "--reason", "test", "--yes"]);
    assert!(run(set("0", "1"), 1).contains("nothing was changed"), "elsewhere than expected");
    assert!(run(set("99999", &last), 1).contains("the stream ends at"), "outside the stream");
    let fence = shown["lanes"][0]["fence"].as_i64().unwrap();
    let owned = set("0", &last);
    let back: Vec<&str> = owned.iter().map(String::as_str).collect();
    let moved = json(&projection, 0, &back);
    assert_eq!((&moved["again"], &moved["skipped"]), (&json!(projection.last_seq()), &json!(0)));
    let shown = json(&projection, 0, &["checkpoint", "show"]);
    assert_eq!(shown["applied_seq"], 0);
    assert!(shown["lanes"][0]["fence"].as_i64().unwrap() > fence, "an old owner is kept out");
    json(&projection, 0, &["resume"]);
    projection.check().await;
}

/// A child that ends with its test.
struct Watch(std::process::Child);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_that_is_watched_is_shown_again_as_it_changes() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(5, 50, 36)).await;
    projection.settle().await;
    let mut command = projection.ground.command("projector", &["status", "--watch", "--json"]);
    let mut watch = Watch(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(watch.0.stdout.take().unwrap()).lines();
    let mut next = || -> Value {
        let line = tokio::task::block_in_place(|| lines.next().unwrap().unwrap());
        serde_json::from_str(&line).unwrap()
    };
    let before = projection.last_seq();
    assert_eq!(next()["projection"]["applied_seq"], before);
    projection.publish(&history(5, 50, 37)).await;
    projection.settle().await;
    let after = projection.last_seq();
    let shown = (0..20).map(|_| next()).find(|status| status["projection"]["applied_seq"] == after);
    assert!(shown.is_some(), "it shows what was applied since");
    // What is wrong is shown, and the watch goes on.
    projection.ground.nats.kill9();
    let wrong = (0..20).map(|_| next()).find(|status| status["stream"].is_null());
    assert!(cures(&wrong.unwrap())[0].contains("nats-server"));
    next();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_stream_is_refused_until_an_operator_adopts_it() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(10, 200, 38)).await;
    projection.check().await;
    let (folder, last) = (super::transfer::tempfile(), projection.last_seq().to_string());
    let file = format!("{folder}/all.ndjson.zst");
    json(&projection, 0, &["export", "--output", &file]);
    projection.jetstream().await.delete_stream("LEADPULSE_EVENTS").await.unwrap();
    create_stream(&projection.ground).await;
    json(&projection, 0, &["import", &file, "--yes", "--reason", "its disk was lost"]);
    let status = json(&projection, 1, &["status"]);
    assert!(status.to_string().contains("recreated"), "{status}");

    json(&projection, 0, &["pause", "--reason", "test", "--yes"]);
    let words = ["checkpoint", "set", "0", "--expect", &last, "--reason", "restored", "--yes"];
    let said = refused(&projection, 1, &words);
    assert!(said.contains("--adopt-stream"), "{said}");
    let words = [words.as_slice(), &["--adopt-stream"]].concat();
    assert_eq!(json(&projection, 0, &words)["stream_adopted"], true);
    assert_eq!(last_audit(&projection)["arguments"]["adopt_stream"], true);
    json(&projection, 0, &["resume"]);
    projection.check().await;
    projection.publish(&history(10, 50, 39)).await;
    projection.check().await;
    json(&projection, 0, &["status"]);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Few events are a lag, too, when nobody takes them: here the process is frozen, and keeps its lease.
#[tokio::test]
async fn a_few_events_that_wait_for_long_are_a_finding() {
    let ttl = ("LEADPULSE_PROJECTOR_LEASE_TTL_MS".to_owned(), "60000".to_owned());
    let environment = vec![ttl];
    let mut projection = Projection::start(Setup { environment, ..setup() }).await;
    projection.publish(&history(10, 100, 40)).await;
    projection.settle().await;
    json(&projection, 0, &["status"]);
    projection.projector.signal("STOP");
    projection.publish(&history(10, 14, 41)).await;
    let status = eventually("it is said", PATIENCE, async || {
        let status = operate(&projection, &["status", "--json"]);
        let status: Value = serde_json::from_slice(&status.stdout).ok()?;
        (!status["findings"].as_array()?.is_empty()).then_some(status)
    })
    .await;
    let what = status["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains("events behind, the first of them for"), "{status}");
    assert!(status["lag"]["seconds"].as_f64().unwrap() > 10.0, "{status}");
    projection.projector.signal("CONT");
    projection.check().await;
    json(&projection, 0, &["status"]);
}
