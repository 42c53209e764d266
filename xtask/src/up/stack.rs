//! All that runs, in the order in which it ends: services before the servers that they stand on.

use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};

use crate::{
    local::Local,
    say,
    servers::{
        Binaries, Nats, NatsOptions, Postgres, PostgresOptions, Process, Redis, RedisOptions,
        Server, free_port, how, port_is_free,
    },
};

/// Together under the 10 s that a Ctrl-C may take.
const SERVICES_END_WITHIN: Duration = Duration::from_secs(6);
const SERVERS_END_WITHIN: Duration = Duration::from_secs(3);
/// The name under which the port of nats-server's monitoring pages is kept.
const MONITOR: &str = "nats-monitor";

#[derive(Default)]
pub(super) struct Stack {
    pub(super) services: Vec<Process>,
    pub(super) nats: Option<Server>,
    /// The port of its monitoring pages.
    pub(super) nats_monitor: u16,
    pub(super) redis: Option<Server>,
    pub(super) postgres: Option<Server>,
}

impl Stack {
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.nats.is_none()
            && self.redis.is_none()
            && self.postgres.is_none()
    }

    pub(super) async fn start_servers(&mut self, binaries: &Binaries, local: &Local) -> Result<()> {
        let (binaries, kept) = (binaries.clone(), local.clone());
        let started = tokio::task::spawn_blocking(move || start(&binaries, &kept)).await??;
        let Started { postgres, nats, nats_monitor, redis } = started;
        (self.postgres, self.nats, self.redis) = (Some(postgres), Some(nats), redis);
        self.nats_monitor = nats_monitor;
        let mut ports = local.ports();
        ports.insert(MONITOR.into(), nats_monitor);
        for (name, server) in
            [("postgres", &self.postgres), ("nats", &self.nats), ("redis", &self.redis)]
        {
            if let Some(server) = server {
                ports.insert(name.into(), server.port());
            }
        }
        local.keep_ports(&ports)
    }

    pub(super) fn nats_monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.nats_monitor)
    }

    pub(super) fn pid(&self, service: &str) -> Option<u32> {
        self.services.iter().find(|process| process.name() == service).map(Process::pid)
    }

    /// Ends when something is dead that the others can't do without.
    pub(super) async fn death(&mut self) -> Error {
        loop {
            if let Some(error) = self.dead() {
                return error;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub(super) fn dead(&mut self) -> Option<Error> {
        // Redis is a cache: without it the reads go on, and whoever kills it may want to see just that.
        if self.redis.as_mut().is_some_and(|redis| !redis.process().is_running()) {
            self.redis = None;
            say::line("redis is gone; the reads go on without it (restart `up` to have it back)");
        }
        let servers = [&mut self.postgres, &mut self.nats];
        let servers = servers.into_iter().flatten().map(Server::process);
        self.services.iter_mut().chain(servers).find_map(|process| {
            let how = how(process.ended()?);
            let (name, lines) = (process.name().to_owned(), process.last_lines(10));
            let log = process.log().map(|log| log.display().to_string()).unwrap_or_default();
            Some(anyhow!(
                "{name} {how}: `cargo xtask up` starts all of it again and loses nothing; the log is {log}, its last lines are\n{lines}"
            ))
        })
    }

    /// Everything ends, within 10 s. False if there was nothing.
    pub(super) fn stop(mut self) -> bool {
        if self.is_empty() {
            return false;
        }
        let deadline = Instant::now() + SERVICES_END_WITHIN;
        // In the order of the flow: nothing comes in any more when the projector is asked to end.
        for service in &mut self.services {
            service.ask_to_end();
            service.wait_until(Instant::now() + Duration::from_millis(500));
        }
        end_until(deadline, self.services.iter_mut().collect());
        let deadline = Instant::now() + SERVERS_END_WITHIN;
        let servers = [&mut self.postgres, &mut self.nats, &mut self.redis];
        let mut servers: Vec<_> = servers.into_iter().flatten().map(Server::process).collect();
        for server in &mut servers {
            server.ask_to_end();
        }
        end_until(deadline, servers);
        true
    }
}

fn end_until(deadline: Instant, processes: Vec<&mut Process>) {
    for process in processes {
        if !process.wait_until(deadline) {
            say::line(&format!("{} did not end in time and was killed", process.name()));
            process.end_at_once();
        }
    }
}

struct Started {
    postgres: Server,
    nats: Server,
    nats_monitor: u16,
    redis: Option<Server>,
}

fn start(binaries: &Binaries, local: &Local) -> Result<Started> {
    let ports = local.ports();
    let port = |name: &str| {
        ports.get(name).copied().filter(|port| port_is_free(([127, 0, 0, 1], *port).into()))
    };
    let data = local.data();
    let options = PostgresOptions { port: port("postgres"), ..PostgresOptions::dev() };
    let postgres = Postgres::start(binaries, &data.join("postgres"), &options)?;
    let nats_monitor = port(MONITOR).map_or_else(free_port, Ok)?;
    let options =
        NatsOptions { port: port("nats"), monitor: Some(nats_monitor), ..NatsOptions::default() };
    let nats = Nats::start(binaries, &data.join("nats"), &options)?;
    let redis = match binaries.redis {
        Some(_) => {
            let options = RedisOptions { port: port("redis"), ..RedisOptions::default() };
            Some(Redis::start(binaries, &data.join("redis"), &options)?)
        }
        None => None,
    };
    Ok(Started { postgres, nats, nats_monitor, redis })
}
