//! Which versions of a server are fit, and how a server tells its own.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context, Result, bail};

/// The three servers that Leadpulse stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Postgres,
    Nats,
    Redis,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Postgres, Self::Nats, Self::Redis];

    pub fn name(self) -> &'static str {
        match self {
            Self::Postgres => "Postgres",
            Self::Nats => "nats-server",
            Self::Redis => "Redis",
        }
    }

    /// What may stand on PATH under which name.
    pub(super) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Postgres => &["postgres"],
            Self::Nats => &["nats-server"],
            Self::Redis => &["valkey-server", "redis-server"],
        }
    }

    pub(super) fn fit(self) -> &'static str {
        match self {
            Self::Postgres => "15 to 18",
            Self::Nats => "2.10 or later",
            Self::Redis => "7 or later, or Valkey",
        }
    }

    pub(super) fn is_fit(self, version: Version) -> bool {
        match self {
            Self::Postgres => (15..=18).contains(&version.major),
            // Older ones drop stream settings that they do not know without a word.
            Self::Nats => (version.major, version.minor) >= (2, 10),
            Self::Redis => version.major >= 7,
        }
    }

    pub(super) fn how_to_install(self) -> &'static str {
        match self {
            Self::Postgres => "install Postgres 15 to 18 (Debian: `apt install postgresql`)",
            Self::Nats => {
                "install nats-server 2.10 or later (https://github.com/nats-io/nats-server/releases)"
            }
            Self::Redis => {
                "install Redis 7 or Valkey (Debian: `apt install redis-server`), or use --no-redis"
            }
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 { write!(f, ".{}", self.patch) } else { Ok(()) }
    }
}

/// Asks the program itself, so that what is used is known to run on this machine.
pub(super) fn ask(program: &Path) -> Result<Version> {
    let shown = program.display();
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("{shown} does not run"))?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} does not run: {}", error.trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).with_context(|| format!("{shown} tells no version: {}", text.trim()))
}

/// The first word that is a version, as in `Redis server v=7.0.15 sha=…` or `postgres (PostgreSQL) 15.18 (Debian …)`.
fn parse(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let number = word.trim_start_matches(['v', '=']);
        let mut parts = number.split('.').map(|part| {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            part[..digits].parse::<u32>().ok()
        });
        let (major, minor) = (parts.next()??, parts.next()??);
        Some(Version { major, minor, patch: parts.next().flatten().unwrap_or(0) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_servers_own_words_are_understood() {
        let version = |text: &str| parse(text).map(|version| version.to_string());
        assert_eq!(
            version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"),
            Some("15.18".into())
        );
        assert_eq!(version("nats-server: v2.14.4"), Some("2.14.4".into()));
        assert_eq!(
            version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"),
            Some("7.0.15".into())
        );
        assert_eq!(version("Valkey server v=9.1.2 sha=00000000:1"), Some("9.1.2".into()));
        assert_eq!(version("nats-server: v2.11.0-RC.2"), Some("2.11".into()));
        assert_eq!(version("postgres (PostgreSQL) 19devel"), None);
        assert_eq!(version(""), None);
    }

    #[test]
    fn debians_old_nats_server_is_not_fit() {
        assert!(!Kind::Nats.is_fit(Version { major: 2, minor: 9, patch: 10 }));
        assert!(Kind::Nats.is_fit(Version { major: 2, minor: 10, patch: 0 }));
        assert!(!Kind::Postgres.is_fit(Version { major: 14, minor: 9, patch: 0 }));
    }
}
