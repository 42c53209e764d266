//! The measured system: Postgres with two million leads, which are kept between runs, the projector that
//! looks after AgentMetrics, Redis, and query-api as often as it is started.

use std::{
    path::PathBuf,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, Executor, PgPool, postgres::PgPoolOptions};
use tests::harness::wait_until;
use xtask::servers::{
    Binaries, Choice, Ending, Nats, NatsOptions, Postgres, PostgresOptions, Process, Redis,
    RedisOptions, Scratch, Server, free_port,
};

use super::load::Client;
use crate::{
    report::{PEAK, RESIDENT, cpu_seconds, memory_mib},
    stage::{drop_indexes, make_indexes},
};

pub(super) const ORGS: usize = 10;
/// One more org, with as many leads as an export is to have.
pub(super) const LARGE: &str = "large";
const DATABASE: &str = "bench_query";

pub(super) struct Stage {
    pub pool: PgPool,
    pub redis: Server,
    postgres: Server,
    nats: Server,
    scratch: Scratch,
    /// A key of each org; the large one's is the last.
    pub keys: Vec<String>,
}

/// How much stands in the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// Of the ten orgs together.
    pub leads: i64,
    pub agents: i64,
    /// Of the large org.
    pub large: i64,
}

impl Stage {
    pub(super) async fn start(size: Size) -> Self {
        let choice = Choice::from_environment().unwrap();
        let servers = Binaries::get(choice, true, &mut |line| eprintln!("{line}")).unwrap();
        println!("servers: {servers}");
        let scratch = Scratch::new("bench").unwrap();
        let kept = xtask::root().join("target/bench/query");
        let options = PostgresOptions { keep: true, ..PostgresOptions::server() };
        let postgres = Postgres::start(&servers, &kept, &options).unwrap();
        let folder = |name: &str| scratch.path().join(name);
        let nats = Nats::start(&servers, &folder("nats"), &NatsOptions::default()).unwrap();
        let redis = Redis::start(&servers, &folder("redis"), &RedisOptions::default()).unwrap();
        std::fs::write(folder("leadpulse.toml"), configuration()).unwrap();
        let (server, _) = postgres.url().rsplit_once('/').unwrap();
        let url = format!("{server}/{DATABASE}");
        let pool = PgPoolOptions::new().max_connections(4).connect_lazy(&url).unwrap();
        let mut stage = Self { pool, redis, postgres, nats, scratch, keys: Vec::new() };
        if !stage.is_filled(size).await {
            stage.fill(size).await;
        }
        stage.keys = names().map(|org| stage.key(&org)).collect();
        let jetstream =
            async_nats::jetstream::new(async_nats::connect(stage.nats.url()).await.unwrap());
        jetstream.create_stream(leadpulse_nats::streams::events(1).unwrap()).await.unwrap();
        stage
    }

    pub(super) fn orgs(&self) -> &[String] {
        &self.keys[..ORGS]
    }

    fn url(&self) -> String {
        let (server, _) = self.postgres.url().rsplit_once('/').unwrap();
        format!("{server}/{DATABASE}")
    }

    /// Filled by an earlier run, with as much?
    async fn is_filled(&self, size: Size) -> bool {
        let found: Result<Option<String>, _> =
            sqlx::query_scalar("select obj_description('lead_fact'::regclass)")
                .fetch_one(&self.pool)
                .await;
        matches!(found, Ok(Some(text)) if text == format!("{size:?}"))
    }

    async fn fill(&self, size: Size) {
        let started = Instant::now();
        eprintln!("filling Postgres with {size:?}: some minutes, once");
        let mut admin = sqlx::PgConnection::connect(self.postgres.url()).await.unwrap();
        for statement in ["drop database if exists {} with (force)", "create database {}"] {
            let statement = statement.replace("{}", DATABASE);
            admin.execute(sqlx::AssertSqlSafe(statement)).await.unwrap();
        }
        projector::store::migrate(&self.pool).await.unwrap();
        let indexes = drop_indexes(&self.pool).await;
        for (place, org) in names().enumerate() {
            let count = if place == ORGS { size.large } else { size.leads / ORGS as i64 };
            sqlx::query(LEADS)
                .bind(&org)
                .bind(count)
                .bind(size.agents)
                .execute(&self.pool)
                .await
                .unwrap();
            sqlx::query(USERS).bind(&org).bind(size.agents).execute(&self.pool).await.unwrap();
        }
        make_indexes(&self.pool, indexes).await;
        self.execute("vacuum analyze".to_owned()).await;
        self.execute(format!("comment on table lead_fact is '{size:?}'")).await;
        eprintln!("filled in {:.0} s", started.elapsed().as_secs_f64());
    }

    /// As the projector does after a commit: every answer of the ten orgs ends.
    pub(super) async fn raise_versions(&self) {
        self.execute(
            "with raised as (
                 insert into org_version (org_id, version) select 'org-' || n, 1 from generate_series(0, 9) as n
                 on conflict (org_id) do update set version = org_version.version + 1 returning org_id, version)
             select pg_notify('leadpulse_version', org_id || ':' || version) from raised"
                .to_owned(),
        )
        .await;
    }

    pub(super) async fn execute(&self, statement: String) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.pool).await.unwrap();
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(xtask::root().join("target/release").join(name));
        command
            .env("LEADPULSE_CONFIG", self.scratch.path().join("leadpulse.toml"))
            .env("DATABASE_URL", self.url())
            .env("NATS_URL", self.nats.url())
            .env("REDIS_URL", self.redis.url())
            .env("LEADPULSE_LOG_LEVEL", "warn")
            .env("LEADPULSE_QUERY_API_RATE_LIMIT", "10000000")
            .env("LEADPULSE_QUERY_API_ORG_RATE_LIMIT", "10000000");
        command
    }

    fn key(&self, org: &str) -> String {
        let made = self
            .command("query-api")
            .args(["keys", "create", "--name", "bench", "--org", org])
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        String::from_utf8(made.stdout).unwrap().trim().to_owned()
    }

    /// The real projector over an empty stream: it computes AgentMetrics of all agents anew, and then
    /// those that the clock overtakes.
    pub(super) async fn projector(&self) -> Running {
        // The stream is another one than that of the run before.
        self.execute("delete from checkpoint; delete from agent_dirty".to_owned()).await;
        self.execute(
            "insert into agent_dirty (org_id, agent_id, seq)
             select org_id, user_id, 9223372036854775807 from monday_user"
                .to_owned(),
        )
        .await;
        let port = free_port().unwrap();
        let mut command = self.command("projector");
        command.env("LEADPULSE_PROJECTOR_LISTEN", format!("127.0.0.1:{port}"));
        let running = self.run("projector", command, port).await;
        let waiting = "select (select count(*) from agent_dirty)
            + (select count(*) from (select from checkpoint where projection = 'main' having count(*) = 0) as none)";
        let started = Instant::now();
        wait_until("AgentMetrics are computed", Duration::from_secs(300), async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&self.pool).await.unwrap() == 0
        })
        .await;
        eprintln!("AgentMetrics computed in {:.0} s", started.elapsed().as_secs_f64());
        self.execute("analyze agent_metrics".to_owned()).await;
        running
    }

    /// A new query-api, with nothing in its memory.
    pub(super) async fn query_api(&self, environment: &[(&str, &str)]) -> Running {
        let port = free_port().unwrap();
        let mut command = self.command("query-api");
        command.envs(environment.iter().copied());
        command.env("LEADPULSE_QUERY_API_LISTEN", format!("127.0.0.1:{port}"));
        self.run("query-api", command, port).await
    }

    /// This program as the bare server of these bytes.
    pub(super) async fn bare(&self, body: &[u8]) -> Running {
        let port = free_port().unwrap();
        let file = self.scratch.path().join("body");
        std::fs::write(&file, body).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["query", "--bare", &port.to_string(), "--body"]).arg(file);
        self.run("bare", command, port).await
    }

    async fn run(&self, name: &str, command: Command, port: u16) -> Running {
        let log: PathBuf = self.scratch.path().join(format!("{name}.log"));
        let process = Process::start(name, command, &log, Ending::default()).unwrap();
        let running = Running { process, port };
        wait_until(&format!("{name} is ready"), Duration::from_secs(60), async || {
            running.get("/health/readiness").await.is_some_and(|answer| answer.0 == 200)
        })
        .await;
        running
    }
}

/// A process that ends with its handle.
pub(super) struct Running {
    process: Process,
    pub port: u16,
}

impl Running {
    /// Ends it as a rollout does.
    pub(super) fn stop(&mut self) -> bool {
        self.process.stop(Duration::from_secs(15))
    }

    /// The status and the body; none while it does not listen yet.
    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer =
            client.get(format!("http://127.0.0.1:{}{path}", self.port)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// The sum of the lines of a metric that have all of these words.
    pub(super) async fn metric(&self, name: &str, words: &[&str]) -> f64 {
        let (_, text) = self.get("/metrics").await.unwrap();
        let lines = text
            .lines()
            .filter(|line| line.starts_with(name) && words.iter().all(|word| line.contains(word)));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Seconds that it has computed.
    pub(super) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.process.pid()).unwrap()
    }

    /// MiB that it holds now.
    pub(super) fn resident(&self) -> f64 {
        memory_mib(self.process.pid(), RESIDENT).unwrap()
    }

    /// The most MiB that it has held.
    pub(super) fn peak(&self) -> f64 {
        memory_mib(self.process.pid(), PEAK).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of its log ---\n{}", self.process.last_lines(20));
        }
    }
}

/// A whole request.
pub(crate) fn request(key: &str, path: &str, more: &str) -> Arc<[u8]> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{more}\r\n")
        .into_bytes()
        .into()
}

/// One read that must succeed, and its body.
pub(super) async fn read(port: u16, key: &str, path: &str) -> Client {
    let mut client = Client::connect(port).await;
    let (status, _) = client.ask(&request(key, path, "")).await;
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(client.body()));
    client
}

fn names() -> impl Iterator<Item = String> {
    (0..ORGS).map(|org| format!("org-{org}")).chain([LARGE.to_owned()])
}

fn configuration() -> String {
    let org = |id: String| {
        format!(
            "[[orgs]]\nid = \"{id}\"\ntime_zone = \"Asia/Jerusalem\"\n[[orgs.boards]]\nid = 9001\n\
             columns = {{ owner = \"person\", status = \"status\", amount = \"numbers\" }}\ncontacted = [1]\nwon = [2]\nlost = [3]\n"
        )
    };
    names().map(org).collect()
}

/// Leads of the last 400 days in the order in which they came, a quarter of the older ones won after some
/// weeks, with names as people have them.
const LEADS: &str = "
insert into lead_fact (org_id, board_id, item_id, name, group_id, status_id, status_label, assigned_user_id, assigned_at,
    deal_amount, industry, entered_at, entered_source, first_touch_at, last_activity_at, state, closed_won_at,
    closed_by_user_id, lifecycle, last_event_at, last_seq, fold_state)
select $1, 9001 + n % 3, n,
    (array['Dana', 'Noa', 'Avi', 'Yael', 'Moshe', 'Tamar', 'Daniel', 'Michal', 'John', 'Maria', 'דנה', 'נועה', 'אבי', 'יעל', 'משה',
        'תמר', 'דניאל', 'מיכל', 'רונית', 'שירה'])[1 + (hash * 7)::bigint % 20] || ' ' ||
    (array['Levi', 'Cohen', 'Mizrahi', 'Peretz', 'Biton', 'Smith', 'Friedman', 'Azoulay', 'Katz', 'Shapiro', 'לוי', 'כהן', 'מזרחי',
        'פרץ', 'ביטון', 'אברהם', 'פרידמן', 'אזולאי', 'כץ', 'שפירא'])[1 + (hash / 20)::bigint % 20] || ' ' || n,
    'topics', case when won then 2 else n % 2 end, case when won then 'Won' else 'New' end, agent, entered,
    100 + n % 900 * 25.5, (array['Finance', 'Health', 'Retail', 'Energy', 'Media', 'Travel', 'Food', null])[1 + n % 8],
    entered, 'created', case when n % 5 < 4 then entered + hash % 5000 * interval '17 s' end,
    entered + interval '3 days', case when won then 'won' when n % 7 = 0 then 'lost' else 'open' end,
    case when won then entered + hash % 900 * interval '1 h' end, case when won then agent end,
    case when n % 50 = 0 then 'deleted' when n % 20 = 0 then 'archived' else 'active' end, entered + interval '3 days', n, ''
from (select n, hash, hash % 4 = 0 and n < $2 * 9 / 10 as won, 7000 + hash / 3 % $3 as agent,
          now() - ($2 - n) * (interval '400 days' / $2) - hash % 3600 * interval '1 s' as entered
      from (select n, abs(hashint8(n)::bigint) as hash from generate_series(1, $2) as n) as hashed) as lead";

const USERS: &str = "
insert into monday_user (org_id, user_id, name, email, kind, status, occurred_at, event_id, last_seq)
select $1, 7000 + n, 'Agent ' || n, 'agent@example.com', 'member', 'active', now(), 'x', 1
from generate_series(0, $2 - 1) as n";
