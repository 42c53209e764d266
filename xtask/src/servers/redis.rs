//! A private Redis, or Valkey, that keeps nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::{
    Binaries, Kind, port,
    process::Ending,
    server::{Launch, Server, ask},
};

#[derive(Debug, Clone)]
pub struct RedisOptions {
    pub conf: PathBuf,
    pub port: Option<u16>,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self { conf: crate::root().join("deploy/redis/dev.conf"), port: None }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Redis;

impl Redis {
    pub fn start(binaries: &Binaries, dir: &Path, options: &RedisOptions) -> Result<Server> {
        fs::create_dir_all(dir).with_context(|| format!("can't make {}", dir.display()))?;
        let found = binaries.redis.as_ref().context("Redis was not asked for")?;
        let (program, folder) = (found.program.clone(), dir.to_owned());
        let conf = options.conf.clone();
        let port = options.port.map_or_else(port::free, Ok)?;
        let launch = Launch {
            kind: Kind::Redis,
            port,
            log: dir.join("redis.log"),
            ending: Ending::default(),
            litter: None,
            command: Box::new(move || {
                let mut command = Command::new(&program);
                command.arg(&conf).args(["--port", &port.to_string(), "--dir"]);
                command.arg(&folder).current_dir(&folder);
                Ok(command)
            }),
            ready: |stream| Some(ask(stream, b"PING\r\n")?.starts_with(b"+PONG")),
        };
        Server::start(launch, format!("redis://127.0.0.1:{port}"))
    }
}
