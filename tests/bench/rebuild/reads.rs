//! Dashboards that read while the tables are rebuilt: a few connections at a steady rate, over a real
//! query-api, and no question twice, so that each is answered by Postgres.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{TimeDelta, Utc};
use tests::harness::wait_until;
use tokio::task::JoinHandle;
use xtask::servers::{Ending, Process, free_port};

use crate::{
    query::{
        load::{Figures, Load, Requests},
        stage::request,
    },
    stage::{ORG, Stage},
};

const CONNECTIONS: usize = 6;
const SORTS: [&str; 4] =
    ["conversion_rate", "deals_amount_sum", "closed_won_count", "avg_deal_size"];

/// A query-api on the live tables of the bench, with a key.
pub(super) struct Dashboards {
    _api: Process,
    port: u16,
    key: String,
    rate: f64,
    /// No two questions of a run are the same.
    next: Arc<AtomicU64>,
}

impl Dashboards {
    pub(super) async fn start(stage: &Stage, database: &str, rate: f64) -> Self {
        let port = free_port().unwrap();
        let command = || {
            let mut command = Command::new(xtask::root().join("target/release/query-api"));
            command
                .env("LEADPULSE_CONFIG", stage.scratch.path().join("leadpulse.toml"))
                .env("DATABASE_URL", stage.url(database))
                .env("NATS_URL", stage.nats.url())
                .env("REDIS_ENABLED", "false")
                .env("LEADPULSE_LOG_LEVEL", "warn")
                .env("LEADPULSE_QUERY_API_LISTEN", format!("127.0.0.1:{port}"));
            command
        };
        let made = command().args(["keys", "create", "--name", "bench", "--org", ORG]).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{made:?}");
        let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        let log = stage.scratch.path().join("query-api.log");
        let api = Process::start("query-api", command(), &log, Ending::default()).unwrap();
        let ready = format!("http://127.0.0.1:{port}/health/readiness");
        wait_until("query-api is ready", Duration::from_secs(60), async || {
            reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Self { _api: api, port, key, rate, next: Arc::default() }
    }

    /// Reads for so long.
    pub(super) async fn read(&self, span: Duration) -> Figures {
        let load = Load { rate: Some(self.rate), ..Load::new(self.port, CONNECTIONS, span) };
        let figures = load.run(self.questions()).await;
        let good = |((status, _), _): (&(u16, String), _)| *status == 200;
        assert!(figures.origins.iter().all(good), "{:?}", figures.origins);
        figures
    }

    /// Reads until told to stop.
    pub(super) fn read_until(self: &Arc<Self>, stop: &Arc<AtomicBool>) -> JoinHandle<Figures> {
        let (this, stop) = (Arc::clone(self), Arc::clone(stop));
        tokio::spawn(async move {
            let mut all = Figures::default();
            while !stop.load(Ordering::Relaxed) {
                all.times.extend(this.read(Duration::from_millis(500)).await.times);
            }
            all
        })
    }

    fn questions(&self) -> Requests {
        let (key, next) = (self.key.clone(), Arc::clone(&self.next));
        Arc::new(move |_| request(&key, &question(next.fetch_add(1, Ordering::Relaxed)), ""))
    }
}

/// The n-th question: a leaderboard, a summary, two lists.
fn question(n: u64) -> String {
    // The same rows, and another question by a microsecond.
    let other = TimeDelta::microseconds(i64::try_from(n).unwrap());
    let day = Utc::now().date_naive().and_hms_opt(0, 0, 0).unwrap().and_utc() + other;
    let ago = |days| (day - TimeDelta::days(days)).format("%Y-%m-%dT%H:%M:%S%.6fZ");
    let of = n / 4;
    match n % 4 {
        0 => {
            let (sort, window) = (SORTS[of as usize % 4], [7, 30, 90][of as usize / 4 % 3]);
            let (min, limit) = (of / 12 % 20, 50 + of / 240 % 150);
            format!("/v1/agents/leaderboard?window={window}d&sort={sort}&min_n={min}&limit={limit}")
        }
        1 => format!("/v1/kpis/summary?from={}&to={}", ago(30), ago(0)),
        2 => format!("/v1/leads?limit=50&to={}", ago(-1)),
        _ => format!("/v1/leads?limit=50&agent_id={}&state=open&to={}", 1 + of % 1000, ago(-1)),
    }
}
