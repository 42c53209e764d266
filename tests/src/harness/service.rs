//! One of the three services: started, killed, started again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use reqwest::Client;
use serde_json::Value;
use xtask::servers::{Ending, Process};

use super::{PATIENCE, binaries, http, wait_until};

pub struct Service {
    name: &'static str,
    url: String,
    process: Process,
    pub(super) client: Client,
    log: PathBuf,
    environment: Vec<(String, String)>,
}

impl Service {
    pub fn start(
        name: &'static str,
        folder: &Path,
        environment: &[(String, String)],
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let (process, url) = launch(name, &log, environment)?;
        let client = http::client()?;
        Ok(Self { name, url, process, client, log, environment: environment.to_vec() })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it listens now: another port after each start.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Sets a variable for its next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Waits until it says that it can do its job.
    pub async fn wait_until_ready(&self) {
        wait_until(&format!("{} is ready", self.name), PATIENCE, async || {
            self.get("/health/readiness", &[]).await.is_ok_and(|answer| answer.status == 200)
        })
        .await;
    }

    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Kills it and starts it again; it takes its connections on a new port.
    pub fn kill_and_restart(&mut self) {
        self.kill9();
        self.restart()
            .unwrap_or_else(|error| panic!("{} does not come back: {error:#}", self.name));
    }

    pub fn restart(&mut self) -> Result<()> {
        (self.process, self.url) = launch(self.name, &self.log, &self.environment)?;
        Ok(())
    }

    /// How it ended, if it does within the time.
    pub async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.process.ended() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Asks it to end (SIGTERM); says whether it did within the time, by itself.
    pub fn stop(&mut self, patience: Duration) -> bool {
        self.process.stop(patience)
    }

    /// Sends it a signal, such as `STOP` and `CONT`.
    pub fn signal(&self, name: &str) {
        let name = format!("-{name}");
        let sent = Command::new("kill").args([&name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{name} can't be sent to {}", self.name);
    }

    /// All its log, of all its runs.
    pub fn log_text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log_text());
        }
    }
}

fn launch(name: &str, log: &Path, environment: &[(String, String)]) -> Result<(Process, String)> {
    let mut command = Command::new(binaries::path(name)?);
    command.env_clear().envs(environment.iter().cloned());
    let from = fs::metadata(log).map_or(0, |earlier_runs| earlier_runs.len());
    let mut process = Process::start(name, command, log, Ending::default())?;
    process.wait_ready(PATIENCE, || listening(log, from).is_some())?;
    let address = listening(log, from).context("it listened a moment ago")?;
    Ok((process, format!("http://{address}")))
}

/// The address that this run's `listening` line tells.
fn listening(log: &Path, from: u64) -> Option<String> {
    let bytes = fs::read(log).ok()?;
    let this_run = bytes.get(usize::try_from(from).ok()?..)?;
    String::from_utf8_lossy(this_run).lines().find_map(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        let said = line["fields"]["message"] == "listening";
        said.then(|| line["fields"]["addr"].as_str().map(str::to_owned))?
    })
}
