//! Schemathesis reads the OpenAPI document and tries to break what it promises: wrong and odd values in
//! every parameter, other methods, missing keys.

use std::{path::PathBuf, process::Command};

use tests::harness::{Service, create_stream, long_run};
use xtask::schemathesis;

use super::fixture::{METRICS, Reads, USERS};

/// `cargo xtask test` says so where it can't be had, and leaves these tests out.
fn program() -> PathBuf {
    schemathesis::get().unwrap_or_else(|| {
        panic!("schemathesis {} is not here and PyPI is away", schemathesis::VERSION)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let program = program();
    let reads = Reads::start(false, &[]).await;
    create_stream(&reads.ground).await;
    // Every `min_seq` is applied: that a read refuses one that is not, is its job.
    reads.applied(i64::MAX).await;
    reads.fill(40).await;
    reads.run(METRICS, 4).await;
    reads.run(USERS, 4).await;
    let mut command = command(program, &reads.api, &reads.key);
    command
        // A stream does not end.
        .args(["--exclude-path", "/v1/stream"])
        // These are for keys of no org, and have a run of their own.
        .args(["--exclude-path-regex", "^/ops/instance"]);
    finds_nothing(&reads.api, command).await;
}

/// It pauses, moves positions, begins rebuilds, sends rubbish to be imported: nobody projects here, and the
/// tables are its own.
#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_with_the_operators_key() {
    let program = program();
    let reads = Reads::start(false, &[]).await;
    create_stream(&reads.ground).await;
    reads.fill(40).await;
    let key = reads.ground.create_instance_key();
    let mut command = command(program, &reads.api, &key);
    command.args(["--include-path-regex", "^/ops/instance"]);
    finds_nothing(&reads.api, command).await;
}

fn command(program: PathBuf, api: &Service, key: &str) -> Command {
    let examples = if long_run() { "100" } else { "5" };
    let mut command = Command::new(program);
    command
        .args(["run", "--phases", "examples,coverage,fuzzing,stateful"])
        // Python 3.11 fails now and then when two threads parse at once (cpython issue 106905).
        .args(["--workers", "1"])
        .args(["--max-examples", examples, "--seed", "1", "--continue-on-failure"])
        .args(["--warnings", "off", "--suppress-health-check", "all"])
        // No schema says that a span has two ends, which windows the org has, or what a cursor is good for.
        .args(["--exclude-checks", "positive_data_acceptance"])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(["--header", &format!("x-api-key: {key}")])
        .arg(format!("{}/openapi.json", api.url()))
        .env("HYPOTHESIS_STORAGE_DIRECTORY", std::env::temp_dir().join("leadpulse-hypothesis"))
        .current_dir(std::env::temp_dir());
    command
}

async fn finds_nothing(api: &Service, mut command: Command) {
    let run = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    assert!(!api.log_text().contains("panicked"));
}
