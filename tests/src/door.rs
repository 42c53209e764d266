//! `ingest` alone with a NATS of its own: for tests that are about the door and nothing behind it.

use std::{collections::BTreeMap, fs, path::Path, process::Output, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream;
use xtask::servers::{Binaries, Choice, Nats, NatsOptions, Scratch, Server};

use crate::{
    harness::{self, PATIENCE, SECRET, Service, eventually, wait_until},
    wire::{RawAnswer, exchange},
};

/// The token of the source `by-token`.
pub const TOKEN: &str = "path-token-that-nobody-may-see";
/// The secret of the source `by-mac`.
pub const MAC_SECRET: &str = "mac-secret-that-nobody-may-see";
/// The secret of the source `by-standard`, as the Standard Webhooks scheme spells it.
pub const STANDARD_SECRET: &str = "whsec_c3RhbmRhcmQtc2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU=";

/// A running `ingest`. The order of the fields is the order of the end.
pub struct Door {
    pub ingest: Service,
    pub nats: Option<Server>,
    /// Where the stream can be read, whatever lies between it and `ingest`.
    pub nats_url: String,
    environment: Vec<(String, String)>,
    scratch: Scratch,
}

/// What a test wants to differ from the usual.
#[derive(Debug, Default, Clone)]
pub struct DoorSetup {
    /// More lines of the section `[ingest]`.
    pub ingest: String,
    /// More lines of the section `[nats]`.
    pub nats: String,
    /// More lines of the source `by-token`.
    pub by_token: String,
    /// Another way from `ingest` to NATS than the straight one.
    pub nats_url: Option<String>,
    /// No server of its own: there is one at `nats_url`, or none.
    pub no_nats: bool,
}

/// A message of a stream, as text: not every event can be read into a `Value`.
#[derive(Debug, Clone)]
pub struct Message {
    pub id: Option<String>,
    pub text: String,
}

impl Door {
    pub async fn start(setup: DoorSetup) -> Self {
        Self::start_with(setup, &[]).await
    }

    /// With more variables in its environment.
    pub async fn start_with(setup: DoorSetup, variables: &[(&str, &str)]) -> Self {
        let scratch = Scratch::new("door").expect("a folder");
        let nats = (!setup.no_nats).then(|| start_nats(scratch.path()).expect("a NATS server"));
        let direct = nats.as_ref().map(|nats| nats.url().to_owned());
        let nats_url = setup.nats_url.clone().or_else(|| direct.clone()).expect("an address");
        let config = scratch.path().join("leadpulse.toml");
        fs::write(&config, configuration(&setup)).expect("the configuration can be written");
        let environment = [
            ("LEADPULSE_CONFIG", config.display().to_string()),
            ("NATS_URL", nats_url.clone()),
            ("TEST_SIGNING_SECRET", SECRET.to_owned()),
            ("TEST_TOKEN", TOKEN.to_owned()),
            ("TEST_MAC_SECRET", MAC_SECRET.to_owned()),
            ("TEST_STANDARD_SECRET", STANDARD_SECRET.to_owned()),
            ("TEST_QUARANTINE_KEY", "quarantine-key".to_owned()),
        ]
        .into_iter()
        .chain(variables.iter().map(|(name, value)| (*name, (*value).to_owned())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect::<Vec<_>>();
        let ingest = Service::start("ingest", scratch.path(), &environment).expect("ingest starts");
        let nats_url = direct.unwrap_or(nats_url);
        Self { ingest, nats, nats_url, environment, scratch }
    }

    pub async fn ready(self) -> Self {
        self.wait_until_ready().await;
        self
    }

    pub async fn wait_until_ready(&self) {
        wait_until("ingest is ready", PATIENCE, async || self.is_ready()).await;
    }

    pub fn is_ready(&self) -> bool {
        self.get("/health/readiness").status == 200
    }

    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.ingest.url().trim_start_matches("http://").to_owned()
    }

    /// Runs `ingest` as an operator would.
    pub fn run(&self, arguments: &[&str]) -> Output {
        harness::run("ingest", arguments, &self.environment).expect("ingest runs")
    }

    pub fn get(&self, path: &str) -> RawAnswer {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        self.send(&[request.as_bytes()])
    }

    /// Sends the parts one after the other and reads until the connection ends or nothing comes.
    pub fn send(&self, parts: &[&[u8]]) -> RawAnswer {
        exchange(&self.address(), parts)
    }

    /// The sum of the metric over all series that have these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        sum_of(&self.get("/metrics").body, name, labels)
    }

    /// Changes the configuration while ingest runs.
    pub fn edit(&self, from: &str, to: &str) {
        let path = self.folder().join("leadpulse.toml");
        let text = fs::read_to_string(&path).expect("the configuration can be read");
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).expect("the configuration can be written");
    }

    /// The payloads of a stream, by their sequences.
    pub async fn messages(&self, stream: &str) -> BTreeMap<u64, Message> {
        eventually("the stream can be read", PATIENCE, async || {
            read_stream(&self.nats_url, stream).await.ok()
        })
        .await
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of ingest ---\n{}", self.ingest.log_text());
        }
    }
}

pub fn start_nats(folder: &Path) -> Result<Server> {
    start_nats_with(folder, &NatsOptions::default())
}

pub fn start_nats_with(folder: &Path, options: &NatsOptions) -> Result<Server> {
    let servers =
        Binaries::get(Choice::from_environment()?, false, &mut |line| eprintln!("{line}"))?;
    Nats::start(&servers, &folder.join("nats"), options)
}

/// The sum of a metric of a page over all series that have these labels.
pub fn sum_of(page: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |line: &str| labels.iter().all(|(k, v)| line.contains(&format!("{k}=\"{v}\"")));
    let series = page.lines().filter(|line| line.starts_with(name) && has(line));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Message ids and payloads of a stream.
async fn read_stream(url: &str, name: &str) -> Result<BTreeMap<u64, Message>> {
    use futures_util::StreamExt as _;
    let stream = jetstream::new(async_nats::connect(url).await?).get_stream(name).await?;
    let mut left = stream.cached_info().state.messages;
    let config = jetstream::consumer::pull::OrderedConfig::default();
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut read = BTreeMap::new();
    while left > 0 {
        let next = tokio::time::timeout(Duration::from_secs(5), messages.next()).await?;
        let message = next.context("the stream ended early")??;
        let id = message.headers.as_ref().and_then(|headers| headers.get("Nats-Msg-Id"));
        let id = id.map(|id| id.as_str().to_owned());
        let seq = message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence;
        let text = String::from_utf8(message.payload.to_vec())?;
        read.insert(seq, Message { id, text });
        left -= 1;
    }
    Ok(read)
}

fn configuration(setup: &DoorSetup) -> String {
    let DoorSetup { ingest, nats, by_token, .. } = setup;
    format!(
        r#"
[log]
format = "json"
[nats]
{nats}
[ingest]
listen = "127.0.0.1:0"
quarantine_key = "env:TEST_QUARANTINE_KEY"
{ingest}

[[orgs]]
id = "demo"
[[orgs.sources]]
key = "demo-crm"
verify = "jwt"
secrets = [{{ label = "current", secret = "env:TEST_SIGNING_SECRET" }}]
[[orgs.sources]]
key = "by-token"
verify = "token"
secrets = [{{ label = "current", secret = "env:TEST_TOKEN" }}]
{by_token}
[[orgs.sources]]
key = "by-mac"
verify = "hmac"
header = "x-hub-signature-256"
prefix = "sha256="
secrets = [{{ label = "current", secret = "env:TEST_MAC_SECRET" }}]
[[orgs.sources]]
key = "by-standard"
verify = "hmac"
preset = "standard-webhooks"
secrets = [{{ label = "current", secret = "env:TEST_STANDARD_SECRET" }}]
"#
    )
}
