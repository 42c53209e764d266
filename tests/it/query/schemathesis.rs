//! Schemathesis reads the OpenAPI document and tries to break what it promises: wrong and odd values in
//! every parameter, other methods, missing keys. It comes from PyPI, pinned, into a folder of its own.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use tests::harness::{Service, create_stream, long_run};

use super::fixture::{METRICS, Reads, USERS};

const VERSION: &str = "4.32.5";

/// The program; none where it is not there and can't be fetched.
fn program() -> Option<PathBuf> {
    let home = xtask::root().join(".local").join(format!("schemathesis-{VERSION}"));
    let run = |program: PathBuf, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let program = home.join("bin/schemathesis");
    // One that was moved along with its workspace is there and does not run.
    if !run(program.clone(), &["--version"]) {
        std::fs::remove_dir_all(&home).ok();
        let wanted = format!("schemathesis=={VERSION}");
        let install = ["install", "--quiet", "--disable-pip-version-check", &wanted];
        let made = run("python3".into(), &["-m", "venv", &home.display().to_string()])
            && run(home.join("bin/pip"), &install);
        if !made {
            std::fs::remove_dir_all(&home).ok();
            return None;
        }
    }
    Some(program)
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing() {
    let Some(program) = program() else {
        eprintln!("left out: schemathesis {VERSION} is not here and PyPI is away");
        return;
    };
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
    let Some(program) = program() else {
        eprintln!("left out: schemathesis {VERSION} is not here and PyPI is away");
        return;
    };
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
