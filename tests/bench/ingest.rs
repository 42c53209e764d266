//! `ingest` beside what it is made of: a bare HTTP server that reads a body, and a bare publish that waits
//! for its acknowledgement. What takes both one after the other can have `1 / (1/a + 1/b)` of them at best.

mod bare;
mod client;
mod pace;
mod publish;

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use clap::Args;
use tests::harness::{Claims, PATIENCE, sign_jwt, wait_until};
use xtask::servers::{Binaries, Choice, Nats, NatsOptions, Scratch, Server, free_port};

use crate::report::{PEAK, cpu_seconds, memory_mib, per_second, table};
use client::Load;
use pace::Figures;

/// The length of a webhook's body.
const BODY_BYTES: usize = 1024;
const SECRET: &str = "bench-secret";

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How often all of them are made, one after the other. Of the rates and of what they cost the round with
    /// the middle share is shown, of the times at half rate the one with the middle p99.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only the table with `sync_interval: always`.
    #[arg(long)]
    sync_always: bool,
    /// Only the table with the settings of `cargo xtask up`.
    #[arg(long, conflicts_with = "sync_always")]
    sync_interval: bool,
    /// Be the bare server on this port.
    #[arg(long, hide = true)]
    bare: Option<u16>,
}

pub(crate) async fn run(options: &Options) {
    if let Some(port) = options.bare {
        return bare::serve(port).await;
    }
    let span = Duration::from_secs(options.seconds);
    if !options.sync_always {
        println!("\nnats-server with `sync_interval: 5s`, one copy on disk");
        measure(span, options.rounds, "5s").await;
    }
    if !options.sync_interval {
        println!("\nnats-server with `sync_interval: always`, one copy on disk");
        measure(span, options.rounds, "always").await;
    }
}

async fn measure(span: Duration, rounds: usize, sync: &str) {
    let stage = Stage::start(sync).await;
    let mut rows = Vec::new();
    for connections in [64, 256] {
        let mut made = Vec::new();
        for _ in 0..rounds.max(1) {
            made.push(Round::make(&stage, connections, span).await);
        }
        made.sort_by(|one, other| one.share().total_cmp(&other.share()));
        let (least, most) = (made[0].share(), made[made.len() - 1].share());
        let round = &made[made.len() / 2];
        let Round { a, b, c, cpu, resident, .. } = round;
        let calm = spread_of_calm(&made, |round| &round.calm);
        let calm_b = spread_of_calm(&made, |round| &round.calm_b);
        rows.push(vec![
            connections.to_string(),
            per_second(*a),
            per_second(*b),
            per_second(round.limit()),
            per_second(c.rate),
            format!("{:.2} ({least:.2} to {most:.2})", round.share()),
            format!("{:.1} µs", cpu.as_secs_f64() * 1e6),
            c.times(),
            calm,
            calm_b,
            format!("{resident:.0} MiB"),
        ]);
    }
    table(
        &[
            "connections",
            "(a) bare axum",
            "(b) publish, ack awaited",
            "composed limit",
            "(c) ingest",
            "share",
            "ingest's CPU for one",
            "p50 / p99 at full rate",
            "p50 / p99 at half",
            "(b) at the same rate",
            "resident",
        ],
        &rows,
    );
}

/// The times of the round with the middle p99, and the least and the greatest p99.
fn spread_of_calm(rounds: &[Round], of: impl Fn(&Round) -> &Figures) -> String {
    let mut figures: Vec<_> = rounds.iter().map(of).collect();
    figures.sort_by(|one, other| one.p99_ms.total_cmp(&other.p99_ms));
    let (least, most) = (figures[0].p99_ms, figures[figures.len() - 1].p99_ms);
    format!("{} ({least:.1} to {most:.1})", figures[figures.len() / 2].times())
}

/// (a), (b) and (c) within some seconds of each other: a shared machine is another one a minute later.
struct Round {
    a: f64,
    b: f64,
    c: Figures,
    /// At half of (c)'s rate.
    calm: Figures,
    /// The bare publish at that rate.
    calm_b: Figures,
    /// Of ingest, for a webhook of (c).
    cpu: Duration,
    resident: f64,
}

impl Round {
    async fn make(stage: &Stage, connections: usize, span: Duration) -> Self {
        let load = |port| Load { port, connections, span, rate: None };
        let bare = Running::bare().await;
        load(bare.port).warm_up().await;
        let a = load(bare.port).run(&stage.request()).await.rate;
        drop(bare);
        let publish = |rate| publish::run(stage.nats.url(), connections, span, rate);
        let b = publish(None).await.rate;
        let ingest = stage.ingest().await;
        load(ingest.port).warm_up().await;
        let cpu_before = ingest.cpu_seconds();
        let c = load(ingest.port).run(&stage.request()).await;
        let cpu = Duration::from_secs_f64((ingest.cpu_seconds() - cpu_before) / c.count as f64);
        let resident = ingest.resident_mib();
        let half = Some(c.rate / 2.0);
        let calm = Load { rate: half, ..load(ingest.port) }.run(&stage.request()).await;
        drop(ingest);
        let calm_b = publish(half).await;
        Self { a, b, c, calm, calm_b, cpu, resident }
    }

    fn limit(&self) -> f64 {
        1.0 / (1.0 / self.a + 1.0 / self.b)
    }

    fn share(&self) -> f64 {
        self.c.rate / self.limit()
    }
}

/// The servers of one table.
struct Stage {
    nats: Server,
    scratch: Scratch,
    token: String,
}

impl Stage {
    async fn start(sync: &str) -> Self {
        let choice = Choice::from_environment().unwrap();
        let servers = Binaries::get(choice, false, &mut |line| eprintln!("{line}")).unwrap();
        let scratch = Scratch::new("bench").unwrap();
        let dev = fs::read_to_string(xtask::root().join("nats/server/dev.conf")).unwrap();
        let conf = scratch.path().join("nats.conf");
        fs::write(&conf, dev.replace(r#"sync_interval: "5s""#, &format!("sync_interval: {sync}")))
            .unwrap();
        let options = NatsOptions { conf, ..NatsOptions::default() };
        let nats = Nats::start(&servers, &scratch.path().join("nats"), &options).unwrap();
        let claims = Claims::default();
        let claims = Claims { expires_at: claims.expires_at + 86_400, ..claims };
        Self { nats, scratch, token: sign_jwt(&claims, SECRET) }
    }

    /// The head of each request; its body is another one each time.
    fn request(&self) -> String {
        format!(
            "POST /webhooks/monday/bench HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             authorization: {}\r\ncontent-length: {BODY_BYTES}\r\n\r\n",
            self.token
        )
    }

    async fn ingest(&self) -> Running {
        let config = self.scratch.path().join("leadpulse.toml");
        fs::write(&config, CONFIG).unwrap();
        let port = free_port().unwrap();
        let mut command = Command::new(xtask::root().join("target/release/ingest"));
        command
            .env("LEADPULSE_CONFIG", config)
            .env("NATS_URL", self.nats.url())
            .env("LEADPULSE_INGEST_LISTEN", format!("127.0.0.1:{port}"))
            .env("LEADPULSE_LOG_LEVEL", "warn")
            .env("BENCH_SECRET", SECRET);
        Running::start(command, port, "/health/readiness").await
    }
}

const CONFIG: &str = r#"
[[orgs]]
id = "bench"
[[orgs.sources]]
key = "bench"
verify = "jwt"
rate_per_second = 1000000
secrets = [{ label = "current", secret = "env:BENCH_SECRET" }]
"#;

/// A process that ends with its handle.
struct Running {
    child: Child,
    port: u16,
}

impl Running {
    async fn bare() -> Self {
        let port = free_port().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["ingest", "--bare", &port.to_string()]);
        Self::start(command, port, "/health").await
    }

    async fn start(mut command: Command, port: u16, path: &str) -> Self {
        let child = command.stdout(Stdio::null()).spawn().unwrap();
        let running = Self { child, port };
        wait_until("it is ready", PATIENCE, async || client::status(port, path).await == Some(200))
            .await;
        running
    }

    fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id()).unwrap_or(f64::NAN)
    }

    fn resident_mib(&self) -> f64 {
        memory_mib(self.child.id(), PEAK).unwrap_or(f64::NAN)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
