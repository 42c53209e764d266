//! `cargo xtask up` and `down` as a developer uses them, beside whatever else runs in this folder.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tests::harness::{PATIENCE, wait_until};
use xtask::servers::{Scratch, free_port};

struct Up {
    scratch: Scratch,
}

impl Up {
    fn new() -> Self {
        let up = Self { scratch: Scratch::new("up").unwrap() };
        // As if an earlier run had had these: tests that run at once would all want the usual ones.
        let port = || free_port().unwrap();
        let ports = json!({ "ingest": port(), "projector": port(), "query-api": port() });
        fs::create_dir(up.local()).unwrap();
        fs::write(up.local().join("ports.json"), ports.to_string()).unwrap();
        up
    }

    fn local(&self) -> PathBuf {
        self.scratch.path().join("local")
    }

    fn xtask(&self, arguments: &[&str]) -> Output {
        Command::new(programs().join("xtask"))
            .args(arguments)
            .env("LEADPULSE_LOCAL", self.local())
            .output()
            .expect("`cargo build --workspace --bins` builds xtask")
    }

    fn up(&self) -> Value {
        self.up_and_tell().0
    }

    /// What `run.json` has, and what was said.
    fn up_and_tell(&self) -> (Value, String) {
        let folder = programs();
        let programs = ["--programs", folder.to_str().unwrap()];
        let arguments = [&["up", "--no-demo", "--detach"][..], &programs].concat();
        let output = self.xtask(&arguments);
        assert!(output.status.success(), "{}", said(&output));
        (self.run_file().unwrap(), said(&output))
    }

    fn run_file(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.local().join("run.json")).ok()?).ok()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.xtask(&["down"]);
    }
}

/// Where cargo has put what it has built.
fn programs() -> PathBuf {
    if let Some(folder) = std::env::var_os("LEADPULSE_TEST_BIN_DIR") {
        return folder.into();
    }
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().to_owned()
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn pids(run: &Value) -> Vec<u64> {
    run["pids"].as_object().unwrap().values().filter_map(Value::as_u64).collect()
}

/// A process that has ended and that nobody has asked about yet has no program any more.
fn lives(pid: u64) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

async fn all_end(run: &Value) {
    let pids = pids(run);
    let all_ended = async || !pids.iter().any(|pid| lives(*pid));
    wait_until("every process has ended", PATIENCE, all_ended).await;
}

#[tokio::test]
async fn up_gives_services_that_are_ready_and_a_key_that_opens_and_down_ends_everything() {
    let up = Up::new();
    let (run, told) = up.up_and_tell();
    let http = reqwest::Client::new();
    for service in ["ingest_url", "projector_url", "query_api_url"] {
        let url = format!("{}/health/readiness", run[service].as_str().unwrap());
        assert_eq!(http.get(url).send().await.unwrap().status(), 200, "{service}");
    }
    let url = format!("{}/v1/leads", run["query_api_url"].as_str().unwrap());
    let key = run["api_key"].as_str().unwrap();
    assert_eq!(http.get(url).bearer_auth(key).send().await.unwrap().status(), 200);

    let line = told.lines().find(|line| line.ends_with("projector status")).expect(&told);
    let status = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(said(&status).contains("all is well"), "{line}: {}", said(&status));

    assert!(said(&status).contains("nats      well, says its monitoring page"), "{line}");
    let log = fs::read_to_string(up.local().join("log/ingest.log")).unwrap();
    assert!(log.contains("synced every 5 s"), "the durability line knows the disk: {log}");

    let second = up.xtask(&["up"]);
    assert!(!second.status.success());
    assert!(said(&second).contains("runs in this folder; stop it with `cargo xtask down`"));

    assert_eq!(pids(&run).len(), 7);
    assert!(up.xtask(&["down"]).status.success());
    all_end(&run).await;
    assert!(up.run_file().is_none(), "run.json tells of what runs, and nothing does");

    let again = up.up();
    assert_eq!(again["api_key"], run["api_key"], "the data were kept");
    assert_eq!(again["database_url"], run["database_url"], "the ports were kept");
}

#[tokio::test]
async fn a_dead_service_ends_all_of_it_with_the_reason() {
    let up = Up::new();
    let run = up.up();
    kill9(&run["pids"]["ingest"]);
    all_end(&run).await;
    let log = fs::read_to_string(up.local().join("log/up.log")).unwrap();
    assert!(log.contains("error: ingest was killed by signal 9: `cargo xtask up` starts"), "{log}");
}

#[tokio::test]
async fn nothing_outlives_an_up_that_was_killed() {
    let up = Up::new();
    let run = up.up();
    kill9(&run["pids"]["supervisor"]);
    all_end(&run).await;
    // And its data are as good as ever.
    up.up();
}

#[tokio::test]
async fn a_taken_port_is_told_in_one_sentence_before_anything_runs() {
    let up = Up::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let demo = fs::read_to_string(xtask::root().join("deploy/demo/leadpulse.toml")).unwrap();
    let config = up.scratch.path().join("mine.toml");
    fs::write(&config, format!("[projector]\nlisten = \"{address}\"\n{demo}")).unwrap();
    let output = up.xtask(&["up", "--debug", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with(&format!("error: {address}, where projector is to listen, is taken")),
        "{said}"
    );
}

fn kill9(pid: &Value) {
    let pid = pid.as_u64().unwrap().to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
}
