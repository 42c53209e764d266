//! Servers, a filled stream and a measured projector.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use async_nats::jetstream;
use chrono::{TimeZone, Utc};
use leadpulse_nats::{Envelope, Kind, envelope, streams};
use serde_json::value::RawValue;
use sqlx::{Connection, Executor, PgPool, postgres::PgPoolOptions};
use tests::harness::wait_until;
use tokio::time::{MissedTickBehavior, interval};
use xtask::servers::{
    Binaries, Choice, Nats, NatsOptions, Postgres, PostgresOptions, Scratch, Server,
};

use crate::report::{PEAK, memory_mib};

pub(crate) const ORG: &str = "bench";

pub(crate) struct Stage {
    pub postgres: Server,
    pub nats: Server,
    pub scratch: Scratch,
}

impl Stage {
    pub(crate) fn start() -> Self {
        let choice = Choice::from_environment().unwrap();
        let servers = Binaries::get(choice, false, &mut |line| eprintln!("{line}")).unwrap();
        println!("servers: {servers}");
        let scratch = Scratch::new("bench").unwrap();
        let options = PostgresOptions::server();
        let postgres =
            Postgres::start(&servers, &scratch.path().join("postgres"), &options).unwrap();
        let nats =
            Nats::start(&servers, &scratch.path().join("nats"), &NatsOptions::default()).unwrap();
        Self { postgres, nats, scratch }
    }

    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.nats.url()).await.unwrap())
    }

    /// An empty stream of record.
    pub(crate) async fn new_stream(&self) {
        let jetstream = self.jetstream().await;
        let _ = jetstream.delete_stream(streams::EVENTS).await;
        jetstream.create_stream(streams::events(1).unwrap()).await.unwrap();
    }

    /// An empty, migrated database.
    pub(crate) async fn new_database(&self, name: &'static str) -> PgPool {
        self.create_database(name, "template1").await;
        let pool = self.pool(name);
        projector::store::migrate(&pool).await.unwrap();
        pool
    }

    /// A copy of a database that nobody is connected to.
    pub(crate) async fn copy_database(&self, name: &'static str, template: &str) -> PgPool {
        self.create_database(name, template).await;
        self.pool(name)
    }

    async fn create_database(&self, name: &str, template: &str) {
        let mut admin = sqlx::PgConnection::connect(self.postgres.url()).await.unwrap();
        for statement in [
            format!("drop database if exists {name} with (force)"),
            format!("create database {name} template {template} strategy file_copy"),
        ] {
            admin.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        }
    }

    pub(crate) fn pool(&self, name: &str) -> PgPool {
        PgPoolOptions::new().max_connections(16).connect_lazy(&self.url(name)).unwrap()
    }

    pub(crate) fn url(&self, database: &str) -> String {
        let (server, _) = self.postgres.url().rsplit_once('/').unwrap();
        format!("{server}/{database}")
    }

    /// The release binary of the projector.
    pub(crate) fn projector(&self, database: &str, lanes: u32) -> Running {
        let config = self.scratch.path().join("leadpulse.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let port = xtask::servers::free_port().unwrap();
        let child = Command::new("target/release/projector")
            .env("LEADPULSE_CONFIG", config)
            .env("DATABASE_URL", self.url(database))
            .env("NATS_URL", self.nats.url())
            .env("LEADPULSE_PROJECTOR_LANES", lanes.to_string())
            .env("LEADPULSE_PROJECTOR_LISTEN", format!("127.0.0.1:{port}"))
            .env("LEADPULSE_LOG_LEVEL", "warn")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Running { child, port }
    }
}

/// An index that is made after the rows is made in a tenth of the time: takes all but the primary key away,
/// and returns how they are made again.
pub(crate) async fn drop_indexes(pool: &PgPool) -> Vec<String> {
    let indexes: Vec<(String, String)> = sqlx::query_as(
        "select indexname, indexdef from pg_indexes
         where tablename = 'lead_fact' and indexname <> 'lead_fact_pkey'",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    for (name, _) in &indexes {
        let drop = sqlx::AssertSqlSafe(format!("drop index {name}"));
        sqlx::raw_sql(drop).execute(pool).await.unwrap();
    }
    indexes.into_iter().map(|(_, definition)| definition).collect()
}

pub(crate) async fn make_indexes(pool: &PgPool, definitions: Vec<String>) {
    for definition in definitions {
        let statement = "set maintenance_work_mem = '512MB'; ".to_owned() + &definition;
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(pool).await.unwrap();
    }
}

pub(crate) struct Running {
    child: Child,
    port: u16,
}

impl Running {
    pub(crate) async fn metrics(&self) -> String {
        let url = format!("http://127.0.0.1:{}/metrics", self.port);
        reqwest::get(url).await.unwrap().text().await.unwrap()
    }

    /// The sum of a metric over its labels.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.metrics().await;
        let lines = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The most memory that it has held.
    pub(crate) fn peak_mebibytes(&self) -> f64 {
        memory_mib(self.child.id(), PEAK).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long until all lanes have this.
pub(crate) async fn applied(pool: &PgPool, seq: i64) -> i64 {
    wait_until("the projector gets there", Duration::from_secs(1200), async || {
        position(pool).await.is_some_and(|at| at >= seq)
    })
    .await;
    position(pool).await.unwrap_or(seq)
}

/// Which position was visible by SQL when, looked at until it is `enough`.
pub(crate) async fn visible(pool: &PgPool, enough: impl Fn(i64) -> bool) -> Vec<(i64, Instant)> {
    // Twice as long as any rebuild or swap may keep the lanes waiting.
    const STALLED: Duration = Duration::from_secs(120);
    let mut seen = vec![(0, Instant::now())];
    let mut moved = Instant::now();
    // What lies between two looks is counted as the projector's: so they are many.
    let mut look = interval(Duration::from_millis(2));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let seq = position(pool).await.unwrap_or(0);
        if seen.last().is_none_or(|(last, _)| *last != seq) {
            moved = Instant::now();
        }
        seen.push((seq, Instant::now()));
        if enough(seq) {
            return seen;
        }
        assert!(moved.elapsed() < STALLED, "the projector stands at {seq}");
    }
}

/// How long after its publish each was visible.
pub(crate) fn delays(published: &[(i64, Instant)], visible: &[(i64, Instant)]) -> Vec<Duration> {
    let delay = |(seq, at): &(i64, Instant)| {
        let seen = visible.partition_point(|(applied, _)| applied < seq);
        visible[seen].1.saturating_duration_since(*at)
    };
    published.iter().map(delay).collect()
}

async fn position(pool: &PgPool) -> Option<i64> {
    let query = "select min(seq) from checkpoint where projection = 'main'";
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

/// The event `n` on a lead: its creation first, then what sales people do.
pub(crate) fn event(lead: i64, n: u64) -> Envelope {
    // Some seconds apart, in the last 90 days.
    let at = 1_788_000_000_000_000 + i64::try_from(n).unwrap() * 7_000_000 / 10;
    let at = Utc.timestamp_micros(at).single().unwrap();
    let (kind, said) = match n % 5 {
        0 => (Kind::CreatePulse, format!(r#""pulseName":"Lead {lead}","groupId":"topics""#)),
        1 => {
            let agent = 1 + lead % 1000;
            (
                Kind::UpdateColumnValue,
                format!(
                    r#""columnId":"person","value":{{"personsAndTeams":[{{"id":{agent},"kind":"person"}}]}}"#
                ),
            )
        }
        2 => {
            let label = n / 5 % 4;
            (
                Kind::UpdateColumnValue,
                format!(
                    r#""columnId":"status","value":{{"label":{{"index":{label},"text":"Label {label}"}}}}"#
                ),
            )
        }
        3 => (
            Kind::UpdateColumnValue,
            format!(r#""columnId":"numbers","value":{{"value":{}.5}}"#, n % 100_000),
        ),
        _ => (Kind::CreateUpdate, r#""textBody":"called""#.to_owned()),
    };
    let event = format!(
        r#"{{"app":"monday","type":"{kind}","triggerTime":"{}","subscriptionId":1,"userId":7001,"boardId":9001,"pulseId":{lead},"triggerUuid":"{n:032x}",{said}}}"#,
        at.to_rfc3339()
    );
    Envelope {
        v: envelope::VERSION,
        org: ORG.into(),
        source: "bench".into(),
        event_id: format!("1:{n:032x}"),
        kind,
        board_id: Some(9001),
        item_id: Some(lead),
        occurred_at: at,
        received_at: at,
        event: RawValue::from_string(event).unwrap(),
    }
}

/// How the events fall on the leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spread {
    Uniform,
    /// A few leads get most of the events.
    Skewed,
}

impl Spread {
    pub(crate) fn lead(self, n: u64, leads: i64) -> i64 {
        // A fixed scramble: the same stream in every run.
        let random = (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64;
        let place = match self {
            Self::Uniform => random,
            Self::Skewed => random.powi(4),
        };
        (place * leads as f64) as i64
    }
}

/// Fills the stream, many publishes at a time.
pub(crate) async fn publish(
    jetstream: &jetstream::Context,
    numbers: std::ops::Range<u64>,
    lead: impl Fn(u64) -> i64,
) {
    let mut waiting = Vec::new();
    for n in numbers {
        let envelope = event(lead(n), n);
        let payload = serde_json::to_vec(&envelope).unwrap();
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(envelope::MESSAGE_ID, envelope.message_id().as_str());
        waiting.push(
            jetstream
                .publish_with_headers(envelope.subject(), headers, payload.into())
                .await
                .unwrap(),
        );
        if waiting.len() == 512 {
            for ack in waiting.drain(..) {
                ack.await.unwrap();
            }
        }
    }
    for ack in waiting {
        ack.await.unwrap();
    }
}

pub(crate) const CONFIG: &str = r#"
[[orgs]]
id = "bench"
[[orgs.boards]]
id = 9001
columns = { owner = "person", status = "status", amount = "numbers", industry = "dropdown" }
contacted = [1]
won = [2]
lost = [3]
"#;
