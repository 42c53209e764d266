//! The operators' tool: the real binary over real servers, as an operator or a script would run it.

mod api;
mod control;
mod dead_letters;
mod explain;
mod full;
mod instance;
mod repair;
mod restored;
mod transfer;

use std::process::Output;

use serde_json::Value;
use tests::{
    generate::{Size, seeded_history},
    harness::{Projection, Setup},
    rules::Rules,
};

/// A random history of this many items and events.
fn history(items: i64, events: usize, seed: u64) -> Vec<String> {
    let now = chrono::Utc::now().timestamp_micros();
    let size = Size { items, events: events..events + 1 };
    seeded_history(&Rules::default(), &size, now, seed)
}

fn setup() -> Setup {
    let ttl = ("LEADPULSE_PROJECTOR_LEASE_TTL_MS".to_owned(), "3000".to_owned());
    Setup { redis: false, environment: vec![ttl], ..Setup::default() }
}

/// Runs `projector` with these words.
fn operate(projection: &Projection, words: &[&str]) -> Output {
    projection.ground.run("projector", words)
}

/// The JSON that it prints; it must end with this code.
fn json(projection: &Projection, code: i32, words: &[&str]) -> Value {
    let words = [words, &["--json"]].concat();
    let output = operate(projection, &words);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert!(said.is_empty() || code != 0, "beside JSON nothing is said: {said}");
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

/// What it says on stderr when it ends with this code.
fn refused(projection: &Projection, code: i32, words: &[&str]) -> String {
    let output = operate(projection, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    assert!(output.stdout.is_empty(), "no data where nothing was done");
    said
}

/// The newest row of the audit.
fn last_audit(projection: &Projection) -> Value {
    json(projection, 0, &["audit", "--limit", "1"])[0].clone()
}
