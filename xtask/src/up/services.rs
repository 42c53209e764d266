//! The three services: their environment, their addresses, and when each does its work.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{
    plan::{Plan, listen_variable},
    stack::Stack,
};
use crate::{
    local::{Local, State},
    programs::SERVICES,
    say::Progress,
    servers::{Ending, Process, Server, free_port, port_is_free},
};

const READY_WITHIN: Duration = Duration::from_secs(60);
const APPLIED_WITHIN: Duration = Duration::from_secs(180);

pub(super) struct Services {
    programs: BTreeMap<String, PathBuf>,
    environment: Vec<(String, String)>,
    addresses: BTreeMap<&'static str, SocketAddr>,
    /// The ports are held until the service itself takes its own: another `up` may look for ports, too.
    held: Mutex<BTreeMap<&'static str, TcpListener>>,
    http: reqwest::Client,
}

impl Services {
    pub(super) fn new(
        programs: BTreeMap<String, PathBuf>,
        plan: &Plan,
        stack: &Stack,
        (secret, quarantine_key): (&str, Option<String>),
        local: &Local,
    ) -> Result<Self> {
        let addresses = addresses(plan, local)?;
        let hold = |(service, address): (&&'static str, &SocketAddr)| {
            TcpListener::bind(address).ok().map(|listener| (*service, listener))
        };
        let held = Mutex::new(addresses.iter().filter_map(hold).collect());
        let url = |server: &Option<Server>| {
            server.as_ref().map(|server| server.url().to_owned()).unwrap_or_default()
        };
        let mut environment = vec![
            ("LEADPULSE_CONFIG".into(), plan.file.display().to_string()),
            ("DATABASE_URL".into(), url(&stack.postgres)),
            ("NATS_URL".into(), url(&stack.nats)),
            ("LEADPULSE_NATS_MONITOR".into(), stack.nats_monitor_url()),
            ("REDIS_ENABLED".into(), stack.redis.is_some().to_string()),
            ("LEADPULSE_LOG_FORMAT".into(), "text".into()),
            ("NO_COLOR".into(), "1".into()),
        ];
        if stack.redis.is_some() {
            environment.push(("REDIS_URL".into(), url(&stack.redis)));
        }
        for (service, address) in &addresses {
            environment.push((listen_variable(service), address.to_string()));
        }
        if let Some(variable) = plan.secret_variable() {
            environment.push((variable.into(), secret.into()));
        }
        if let Some(key) = quarantine_key {
            let place = "LEADPULSE_QUARANTINE_KEY";
            environment.push(("LEADPULSE_INGEST_QUARANTINE_KEY".into(), format!("env:{place}")));
            environment.push((place.into(), key));
        }
        let http =
            reqwest::Client::builder().timeout(Duration::from_secs(20)).no_proxy().build()?;
        Ok(Self { programs, environment, addresses, held, http })
    }

    fn command(&self, service: &str) -> Result<Command> {
        let program = self.programs.get(service);
        let mut command = Command::new(program.with_context(|| format!("no program {service}"))?);
        // These win over the names that are set below, and would lead to somebody's real servers.
        for name in ["POSTGRES_URL", "NATS_URL", "REDIS_URL", "REDIS_ENABLED"] {
            command.env_remove(format!("LEADPULSE_{name}"));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }

    /// How one types a service's program in a shell, with the servers that the services have.
    pub(super) fn by_hand(&self, service: &str, words: &str) -> String {
        let needed = ["LEADPULSE_CONFIG", "DATABASE_URL", "NATS_URL", "LEADPULSE_NATS_MONITOR"];
        let set = self.environment.iter().filter(|(name, _)| needed.contains(&name.as_str()));
        let set: String = set.map(|(name, value)| format!("{name}='{value}' ")).collect();
        let program = self.programs.get(service).map(|program| program.display().to_string());
        format!("{set}{} {words}", program.unwrap_or_else(|| service.to_owned()))
    }

    /// Runs a program to its end; gives what it has printed.
    async fn output(&self, service: &str, arguments: &[&str]) -> Result<String> {
        let mut command = tokio::process::Command::from(self.command(service)?);
        let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = output.await.with_context(|| format!("{service} does not start"))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            bail!("`{service} {}` failed:\n{}", arguments.join(" "), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    pub(super) async fn check_config(&self) -> Result<()> {
        self.output("ingest", &["check-config"]).await.map(drop)
    }

    pub(super) async fn migrate(&self, local: &Local) -> Result<()> {
        let mut command = self.command("projector")?;
        command.arg("migrate");
        let log = local.log("migrate");
        let mut process = Process::start("projector migrate", command, &log, Ending::default())?;
        while process.is_running() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !process.wait() {
            bail!("`projector migrate` failed:\n{}", process.last_lines(10));
        }
        Ok(())
    }

    pub(super) async fn start(&self, stack: &mut Stack, local: &Local) -> Result<()> {
        for service in SERVICES {
            let log = local.log(service);
            // One run a file: the one before is kept beside it.
            std::fs::rename(&log, log.with_extension("log.old")).ok();
            self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
            let process = Process::start(service, self.command(service)?, &log, Ending::default())?;
            stack.services.push(process);
        }
        Ok(())
    }

    /// Until all three say that they can do their job.
    pub(super) async fn wait_ready(&self, stack: &mut Stack) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for service in SERVICES {
            loop {
                if let Some(error) = stack.dead() {
                    return Err(error);
                }
                let Err(reason) = self.ready(service).await else { break };
                if Instant::now() > deadline {
                    let seconds = READY_WITHIN.as_secs();
                    return Err(reason.context(format!("{service} is not ready after {seconds} s")));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    async fn ready(&self, service: &str) -> Result<()> {
        let url = format!("{}/health/readiness", self.url(service));
        let answer = self.http.get(url).send().await?;
        match answer.status().as_u16() {
            200 => Ok(()),
            status => Err(anyhow!("{status}: {}", answer.text().await.unwrap_or_default())),
        }
    }

    pub(super) fn url(&self, service: &str) -> String {
        let address = self.addresses.get(service).copied();
        let mut address = address.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        if address.ip().is_unspecified() {
            address.set_ip([127, 0, 0, 1].into());
        }
        format!("http://{address}")
    }

    /// The key of an earlier run if it still opens the door, else a new one.
    pub(super) async fn api_key(
        &self,
        org: &str,
        state: &mut State,
        local: &Local,
    ) -> Result<String> {
        if let Some(key) = state.keys.get(org)
            && self.get(key, "/v1/leads?limit=1").await.is_ok_and(|(status, _)| status != 401)
        {
            return Ok(key.clone());
        }
        let key =
            self.output("query-api", &["keys", "create", "--org", org, "--name", "up"]).await?;
        state.keys.insert(org.to_owned(), key.clone());
        local.keep_state(state)?;
        Ok(key)
    }

    /// A read of the API: its status and how long it took.
    pub(super) async fn get(&self, key: &str, path: &str) -> Result<(u16, Duration)> {
        let start = Instant::now();
        let request = self.http.get(format!("{}{path}", self.url("query-api"))).bearer_auth(key);
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        answer.bytes().await?;
        Ok((status, start.elapsed()))
    }

    /// Until the read models have what ingest has taken.
    pub(super) async fn wait_applied(&self, key: &str, seq: u64, progress: Progress) -> Result<()> {
        if seq == 0 {
            return Ok(());
        }
        let deadline = Instant::now() + APPLIED_WITHIN;
        let path = format!("/v1/kpis/summary?window=30d&min_seq={seq}");
        loop {
            let (status, _) = self.get(key, &path).await?;
            match status {
                200 => break,
                503 | 429 if Instant::now() < deadline => {}
                503 | 429 => bail!(
                    "the projector has not applied event {seq} after {} s; see .local/log/projector.log",
                    APPLIED_WITHIN.as_secs()
                ),
                other => bail!("query-api answers {other} to {path}; see .local/log/query-api.log"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        progress.say(&format!("the read models have all {seq} events"));
        Ok(())
    }
}

/// Where each service listens: where it is told to, else where it was, else at its usual port, else anywhere.
fn addresses(plan: &Plan, local: &Local) -> Result<BTreeMap<&'static str, SocketAddr>> {
    let mut ports = local.ports();
    let mut taken: BTreeSet<u16> = plan.listen.iter().flatten().map(SocketAddr::port).collect();
    let mut addresses = BTreeMap::new();
    for ((service, usual), told) in SERVICES.into_iter().zip([8080, 8081, 8082]).zip(plan.listen) {
        let address = match told {
            Some(address) => address,
            None => {
                let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
                let wished = [ports.get(service).copied(), Some(usual)].into_iter().flatten();
                let free = |port: &u16| !taken.contains(port) && port_is_free(at(*port));
                let port = wished.into_iter().find(free).map_or_else(free_port, Ok)?;
                ports.insert(service.to_owned(), port);
                at(port)
            }
        };
        taken.insert(address.port());
        addresses.insert(service, address);
    }
    local.keep_ports(&ports)?;
    Ok(addresses)
}
