//! A private nats-server with JetStream.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Binaries, Kind, port,
    process::Ending,
    server::{Launch, Server},
};

#[derive(Debug, Clone)]
pub struct NatsOptions {
    pub conf: PathBuf,
    pub port: Option<u16>,
    /// Where its monitoring pages are; nowhere, if nothing is said.
    pub monitor: Option<u16>,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self { conf: crate::root().join("nats/server/dev.conf"), port: None, monitor: None }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Nats;

impl Nats {
    /// Starts an instance whose streams are (or will be) in `dir`.
    pub fn start(binaries: &Binaries, dir: &Path, options: &NatsOptions) -> Result<Server> {
        fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
        let (program, folder) = (binaries.nats.program.clone(), dir.to_owned());
        let (conf, monitor) = (options.conf.clone(), options.monitor);
        let port = options.port.map_or_else(port::free, Ok)?;
        let launch = Launch {
            kind: Kind::Nats,
            port,
            log: dir.join("nats.log"),
            ending: Ending::default(),
            litter: None,
            command: Box::new(move || {
                let mut command = Command::new(&program);
                command.arg("-c").arg(&conf).args(["-a", "127.0.0.1", "-p", &port.to_string()]);
                // On the same address as its clients' port.
                command.args(monitor.map(|port| format!("--http_port={port}")));
                command.arg("-sd").arg(&folder).current_dir(&folder);
                // Go collects garbage each time the heap has doubled, which is three times a second under
                // load, and each time webhooks wait for some 15 ms. The limit must stay above what the server
                // really holds, or it collects without an end (docs/benchmarks.md).
                command.env("GOGC", "800").env("GOMEMLIMIT", "4GiB");
                Ok(command)
            }),
            // Its first line says what it can do; JetStream comes after the recovery of the streams.
            ready: |stream| {
                let mut line = String::new();
                BufReader::new(stream).read_line(&mut line).ok()?;
                Some(line.contains("\"jetstream\":true"))
            },
        };
        Server::start(launch, format!("nats://127.0.0.1:{port}"))
    }
}
