//! The whole of Leadpulse for one test: its three real binaries on real servers, each instance private
//! to the test and on a port of its own. When a test fails, everybody's logs are printed.

mod agree;
mod answers;
mod binaries;
mod http;
mod postgres;
mod projection;
mod service;
mod stream;
mod token;
mod wait;

pub use agree::agree;
pub use http::{Accepted, Answer};
pub use postgres::Database;
pub use projection::{Projection, create_stream, envelope};
pub use service::Service;
pub use stream::Message;
pub use token::{Claims, SHORT_LIVED_TOKEN, sign_jwt};
pub use wait::{eventually, wait_until};

use std::{
    fs,
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result};
use xtask::servers::{
    Binaries, Choice, Nats, NatsOptions, Redis, RedisOptions, Scratch, Server, free_port,
};

use crate::rules::Rules;

/// Within this a condition comes true, or the test fails. Long: the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The org of every test, and the source that its webhooks come from.
pub const ORG: &str = "demo";
pub const SOURCE: &str = "demo-crm";
/// The signing secret of the source; it must never be seen in a log.
pub const SECRET: &str = "signing-secret-that-nobody-may-see";

/// Is this `cargo xtask test --long`? Then the random tests take their time.
pub fn long_run() -> bool {
    std::env::var_os("LEADPULSE_TEST_LONG").is_some()
}

/// What a test wants to differ from the usual.
#[derive(Debug, Clone)]
pub struct Setup {
    pub rules: Rules,
    /// Without Redis the reads are slower, never wrong.
    pub redis: bool,
    /// A Postgres that the test may kill.
    pub own_postgres: bool,
    /// The services know nats-server's monitoring pages.
    pub nats_monitor: bool,
    /// More variables for all services.
    pub environment: Vec<(String, String)>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            rules: Rules::default(),
            redis: true,
            own_postgres: false,
            nats_monitor: false,
            environment: Vec::new(),
        }
    }
}

/// The servers of one test and the configuration of its services: what they are started on.
pub struct Ground {
    pub redis: Option<Server>,
    pub nats: Server,
    pub database: Database,
    pub rules: Rules,
    environment: Vec<(String, String)>,
    scratch: Scratch,
}

impl Ground {
    /// Starts the servers; no service yet.
    pub async fn prepare(setup: Setup) -> Result<Self> {
        let servers = Binaries::get(Choice::from_environment()?, setup.redis, &mut |line| {
            eprintln!("{line}");
        })?;
        let scratch = Scratch::new("test")?;
        let database = Database::create(&servers, scratch.path(), setup.own_postgres).await?;
        let monitor = setup.nats_monitor.then(free_port).transpose()?;
        let options = NatsOptions { monitor, ..NatsOptions::default() };
        let nats = Nats::start(&servers, &scratch.path().join("nats"), &options)?;
        let folder = scratch.path().join("redis");
        let redis = setup
            .redis
            .then(|| Redis::start(&servers, &folder, &RedisOptions::default()))
            .transpose()?;
        let config = scratch.path().join("leadpulse.toml");
        fs::write(&config, configuration(&setup.rules))?;

        let mut environment = vec![
            ("LEADPULSE_CONFIG".to_owned(), config.display().to_string()),
            ("DATABASE_URL".to_owned(), database.url().to_owned()),
            ("NATS_URL".to_owned(), nats.url().to_owned()),
            ("TEST_SIGNING_SECRET".to_owned(), SECRET.to_owned()),
        ];
        match &redis {
            Some(redis) => environment.push(("REDIS_URL".to_owned(), redis.url().to_owned())),
            None => environment.push(("REDIS_ENABLED".to_owned(), "false".to_owned())),
        }
        environment.extend(
            monitor.map(|port| {
                ("LEADPULSE_NATS_MONITOR".to_owned(), format!("http://127.0.0.1:{port}"))
            }),
        );
        environment.extend(setup.environment);
        Ok(Self { redis, nats, database, rules: setup.rules, environment, scratch })
    }

    /// Starts one of the services and waits until it listens.
    pub fn start(&self, name: &'static str) -> Result<Service> {
        Service::start(name, self.scratch.path(), &self.environment)
    }

    /// Starts one more of a service, with a log of its own.
    pub fn start_as(&self, name: &'static str, instance: &str) -> Result<Service> {
        let folder = self.scratch.path().join(instance);
        fs::create_dir_all(&folder)?;
        Service::start(name, &folder, &self.environment)
    }

    /// One of the binaries in the environment of the services, to be started by the test.
    pub fn command(&self, binary: &str, arguments: &[&str]) -> Command {
        command(binary, arguments, &self.environment).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Changes the configuration's file; who has read it before knows nothing of it.
    pub fn reconfigure(&mut self, rules: Rules) {
        let file = self.scratch.path().join("leadpulse.toml");
        fs::write(file, configuration(&rules)).expect("the configuration can be written");
        self.rules = rules;
    }

    /// Runs one of the binaries to its end, as an operator would.
    pub fn run(&self, binary: &str, arguments: &[&str]) -> Output {
        run(binary, arguments, &self.environment).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A new API key with these scopes, or with all.
    pub fn create_key(&self, org: &str, scopes: &[&str]) -> String {
        let mut arguments = vec!["keys", "create", "--org", org, "--name", "test"];
        for scope in scopes {
            arguments.extend(["--scope", scope]);
        }
        self.key(&arguments)
    }

    /// A key for the operators' commands of the whole instance.
    pub fn create_instance_key(&self) -> String {
        self.key(&["keys", "create", "--instance", "--name", "test"])
    }

    fn key(&self, arguments: &[&str]) -> String {
        let output = self.run("query-api", arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "no API key: {said}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// A running Leadpulse. The order of the fields is the order of the end: services before their servers.
pub struct App {
    pub ingest: Service,
    pub projector: Service,
    pub query_api: Service,
    pub ground: Ground,
    pub api_key: String,
}

impl App {
    pub async fn start() -> Self {
        Self::start_with(Setup::default()).await
    }

    /// Starts everything and waits until each service says that it is ready.
    pub async fn start_with(setup: Setup) -> Self {
        match Self::try_start(setup).await {
            Ok(app) => app,
            Err(error) => panic!("can't start Leadpulse for the test: {error:#}"),
        }
    }

    async fn try_start(setup: Setup) -> Result<Self> {
        let ground = Ground::prepare(setup).await?;
        // The projector first: it is the only migrator.
        let projector = ground.start("projector")?;
        let (ingest, query_api) = (ground.start("ingest")?, ground.start("query-api")?);
        let api_key = String::new();
        let mut app = Self { ingest, projector, query_api, ground, api_key };
        app.wait_until_ready().await;
        app.api_key = app.ground.create_key(ORG, &[]);
        Ok(app)
    }

    pub async fn wait_until_ready(&self) {
        for service in self.services() {
            service.wait_until_ready().await;
        }
    }

    pub fn services(&self) -> [&Service; 3] {
        [&self.ingest, &self.projector, &self.query_api]
    }

    /// All that the services have written to their logs so far.
    pub fn logs(&self) -> String {
        self.services().map(Service::log_text).concat()
    }
}

/// Runs a binary with a bare environment: what a developer has set must not reach a test.
pub fn run(binary: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<Output> {
    command(binary, arguments, environment)?.output().with_context(|| format!("can't run {binary}"))
}

fn command(binary: &str, arguments: &[&str], environment: &[(String, String)]) -> Result<Command> {
    let mut command = Command::new(binaries::path(binary)?);
    command.env_clear().envs(environment.iter().cloned()).args(arguments);
    Ok(command)
}

/// The `leadpulse.toml` of a test.
pub fn configuration(rules: &Rules) -> String {
    format!(
        r#"
[log]
format = "json"
[ingest]
listen = "127.0.0.1:0"
[projector]
listen = "127.0.0.1:0"
[query_api]
listen = "127.0.0.1:0"

[[orgs]]
id = "{ORG}"
time_zone = "Asia/Jerusalem"
{rules}
[[orgs.sources]]
key = "{SOURCE}"
verify = "jwt"
secrets = [{{ label = "current", secret = "env:TEST_SIGNING_SECRET" }}]

[[orgs]]
id = "other"
[[orgs.sources]]
key = "other-crm"
verify = "token"
secrets = [{{ label = "current", secret = "env:TEST_SIGNING_SECRET" }}]
"#,
        rules = rules.to_toml()
    )
}
