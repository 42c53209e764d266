//! One file, `leadpulse.toml`, for the three services. All that is wrong with it is reported at once,
//! each with its place, before a port is opened.

mod document;
mod ingest;
mod nats;
mod org;
mod secret;
mod source;

use std::{fmt, fs, net::SocketAddr, path::Path, time::Duration};

use secrecy::SecretString;

use document::{Document, Section};
pub use document::{Environment, Problem};
pub use ingest::Ingest;
pub use nats::{Nats, Promise};
pub use org::{Board, Class, Columns, HotRule, Labels, Org};
pub use secret::SecretRef;
pub use source::{Encoding, Hmac, NamedSecret, Source, Verify};

/// The whole configuration. Each scalar outside `orgs` can be set as `LEADPULSE_<SECTION>_<KEY>` in the
/// environment, which wins over the file; further names are given at the field.
#[derive(Debug, Clone)]
pub struct Config {
    pub postgres: Postgres,
    pub nats: Nats,
    pub redis: Redis,
    pub log: Log,
    pub ingest: Ingest,
    pub projector: Projector,
    pub query_api: QueryApi,
    pub orgs: Vec<Org>,
}

#[derive(Debug, Clone)]
pub struct Postgres {
    /// Also `DATABASE_URL`. Default: `postgres://127.0.0.1:5432/leadpulse`.
    pub url: SecretString,
    /// Connections of one service at most. Default: 10.
    pub max_connections: u32,
}

#[derive(Debug, Clone)]
pub struct Redis {
    /// Also `REDIS_URL`. Default: `redis://127.0.0.1:6379`.
    pub url: SecretString,
    /// Also `REDIS_ENABLED`. Default: true. Without Redis the reads are slower, never wrong.
    pub enabled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone)]
pub struct Log {
    /// `text` or `json`. Default: text.
    pub format: LogFormat,
    /// A filter such as `info` or `info,projector=debug`. Default: info.
    pub level: String,
}

#[derive(Debug, Clone)]
pub struct Projector {
    /// Default: 127.0.0.1:8081.
    pub listen: SocketAddr,
    /// Parallel writers. Default: 2. May be changed between runs without a rebuild.
    pub lanes: u32,
    /// Leads parked within ten minutes at most; more of them pause the projection. Default: 100.
    pub parked_leads_limit: u32,
    /// A standby takes over from an owner that was silent for this long. Milliseconds. Default: 5000.
    pub lease_ttl: Duration,
    /// What `rebuild` and `verify` may hold of the leads that they fold in memory; with less they read the
    /// stream more often. Mebibytes. Default: 512.
    pub rebuild_memory_mib: u32,
    /// What may be held of agents' leads between two computations of their figures: 72 bytes a lead, twice where
    /// its owner is not who won it. An agent that is not held is read whole at its next change. Mebibytes.
    /// Default: 256.
    pub agents_memory_mib: u32,
    /// How far `rebuild start` and `verify` step back when others want the CPU, as a `nice` value; 0 lets
    /// them compete. Default: 10.
    pub long_work_nice: u32,
}

#[derive(Debug, Clone)]
pub struct QueryApi {
    /// Default: 127.0.0.1:8082.
    pub listen: SocketAddr,
    /// Also `CACHE_TTL_SECONDS`. How long a cached answer of the short class lives. Default: 60.
    pub cache_ttl: Duration,
    /// Points that one API key gets back in a second; a read that is not answered from memory takes 1 to
    /// 200 of them. Default: 20000.
    pub rate_limit: u32,
    /// The same of all keys of an org together. Default: 80000.
    pub org_rate_limit: u32,
    /// The client of an export or an import over HTTP that takes or sends nothing for this long has gone
    /// away. Milliseconds. Default: 30000.
    pub transfer_silence: Duration,
    /// What exports of leads that are not yet taken may fill of the disk (in `TMPDIR`), all together; a million
    /// leads are about 240 MiB. Mebibytes. Default: 4096.
    pub export_disk_mib: u32,
}

/// A configuration that can't be used: everything that is wrong with it.
#[derive(Debug)]
pub struct Unusable(pub Vec<Problem>);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        let noun = if count == 1 { "problem" } else { "problems" };
        write!(f, "{count} {noun} in the configuration")?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Unusable {}

/// The variables of this process.
pub fn process_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

impl Config {
    /// Reads the file and this process's environment.
    pub fn load(path: &Path) -> Result<Self, Unusable> {
        let file = path.display().to_string();
        let text = fs::read_to_string(path).map_err(|error| {
            Unusable(vec![Problem {
                place: file.clone(),
                message: format!(
                    "can't be read: {error}; name another file with --config or LEADPULSE_CONFIG"
                ),
            }])
        })?;
        Self::parse(&file, &text, &process_environment)
    }

    /// Reads a text; `file` is what problems call it.
    pub fn parse(file: &str, text: &str, environment: Environment<'_>) -> Result<Self, Unusable> {
        let document = Document::new(file, text, environment);
        let table = document.parse();
        let root = Section::root(&document, &table);
        let config = Self {
            postgres: read_postgres(root.section("postgres")),
            nats: nats::read_nats(root.section("nats")),
            redis: read_redis(root.section("redis")),
            log: read_log(root.section("log")),
            ingest: ingest::read_ingest(root.section("ingest")),
            projector: read_projector(root.section("projector")),
            query_api: read_query_api(root.section("query_api")),
            orgs: org::read_orgs(&root),
        };
        if config.orgs.is_empty() {
            root.report("no org: add one with [[orgs]]");
        }
        root.finish();
        drop(table);
        match document.into_problems() {
            problems if problems.is_empty() => Ok(config),
            problems => Err(Unusable(problems)),
        }
    }

    pub fn org(&self, id: &str) -> Option<&Org> {
        self.orgs.iter().find(|org| org.id == id)
    }
}

fn read_postgres(section: Section<'_, '_>) -> Postgres {
    let url = url(
        &section,
        "DATABASE_URL",
        &["postgres", "postgresql"],
        "postgres://127.0.0.1:5432/leadpulse",
    );
    let max_connections = bounded(section.number("max_connections", None, 10, 2..=1000));
    section.finish();
    Postgres { url, max_connections }
}

fn read_redis(section: Section<'_, '_>) -> Redis {
    let url = url(&section, "REDIS_URL", &["redis", "rediss"], "redis://127.0.0.1:6379");
    let enabled = section
        .get_or_env::<bool>("enabled", Some("REDIS_ENABLED"))
        .is_none_or(|found| found.value);
    section.finish();
    Redis { url, enabled }
}

fn read_log(section: Section<'_, '_>) -> Log {
    let format = section.get_or_env::<String>("format", None).and_then(|found| {
        section.parsed("format", found, |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("is `{text}`; it must be `text` or `json`")),
        })
    });
    let level = section.get_or_env::<String>("level", None).and_then(|found| {
        section.parsed("level", found, |text| match text.parse::<tracing_subscriber::EnvFilter>() {
            Ok(_) => Ok(text.to_owned()),
            Err(_) => {
                Err(format!("`{text}` is no log filter such as `info` or `info,projector=debug`"))
            }
        })
    });
    section.finish();
    Log { format: format.unwrap_or(LogFormat::Text), level: level.unwrap_or_else(|| "info".into()) }
}

fn read_projector(section: Section<'_, '_>) -> Projector {
    let listen = listen(&section, 8081);
    let lanes = bounded(section.number("lanes", None, 2, 1..=64));
    let parked_leads_limit =
        bounded(section.number("parked_leads_limit", None, 100, 1..=1_000_000));
    let lease_ttl = Duration::from_millis(section.number("lease_ttl_ms", None, 5000, 500..=60_000));
    let rebuild_memory_mib =
        bounded(section.number("rebuild_memory_mib", None, 512, 1..=1_048_576));
    let agents_memory_mib = bounded(section.number("agents_memory_mib", None, 256, 0..=1_048_576));
    let long_work_nice = bounded(section.number("long_work_nice", None, 10, 0..=19));
    section.finish();
    Projector {
        listen,
        lanes,
        parked_leads_limit,
        lease_ttl,
        rebuild_memory_mib,
        agents_memory_mib,
        long_work_nice,
    }
}

fn read_query_api(section: Section<'_, '_>) -> QueryApi {
    let listen = listen(&section, 8082);
    let seconds = section.number("cache_ttl_seconds", Some("CACHE_TTL_SECONDS"), 60, 1..=86_400);
    let points = |name, default| bounded(section.number(name, None, default, 1..=10_000_000));
    let (rate_limit, org_rate_limit) =
        (points("rate_limit", 20_000), points("org_rate_limit", 80_000));
    let silence = section.number("transfer_silence_ms", None, 30_000, 100..=600_000);
    let disk = section.number("export_disk_mib", None, 4096, 1..=1_048_576);
    section.finish();
    QueryApi {
        listen,
        cache_ttl: Duration::from_secs(seconds),
        rate_limit,
        org_rate_limit,
        transfer_silence: Duration::from_millis(silence),
        export_disk_mib: bounded(disk),
    }
}

fn listen(section: &Section<'_, '_>, default_port: u16) -> SocketAddr {
    address(section, "listen").unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], default_port)))
}

fn address(section: &Section<'_, '_>, key: &'static str) -> Option<SocketAddr> {
    let found = section.get_or_env::<String>(key, None)?;
    section.parsed(key, found, |text| {
        text.parse::<SocketAddr>().map_err(|_| {
            format!("is `{text}`; it must be an address and a port such as 127.0.0.1:8080")
        })
    })
}

/// A URL may hold a password: it is a secret, and its text is never repeated in a message.
fn url(section: &Section<'_, '_>, alias: &str, schemes: &[&str], default: &str) -> SecretString {
    let found = section.get_or_env::<String>("url", Some(alias)).and_then(|found| {
        section.parsed("url", found, |text| {
            let known = text
                .split_once("://")
                .is_some_and(|(scheme, rest)| schemes.contains(&scheme) && !rest.is_empty());
            if known {
                Ok(text.to_owned())
            } else {
                Err(format!("must begin with {}://", schemes.join(":// or ")))
            }
        })
    });
    SecretString::from(found.unwrap_or_else(|| default.to_owned()))
}

/// A number whose bounds were checked to fit.
fn bounded(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[orgs]]
id = "demo"
time_zone = "Asia/Jerusalem"
windows = [30, 7]
hot = { window_hours = 48 }

[[orgs.sources]]
key = "demo-crm"
verify = "jwt"
secrets = [{ label = "old", secret = "env:OLD", until = 2027-01-01T00:00:00Z }, { label = "new", secret = "file:/run/new" }]

[[orgs.boards]]
id = 9001
columns = { owner = "person", status = "status" }
contacted = [1]
won = [2, "Won"]
"#;

    fn problems(text: &str, environment: Environment<'_>) -> Vec<String> {
        let unusable = Config::parse("leadpulse.toml", text, environment).unwrap_err();
        unusable.0.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_file_gives_its_values_and_the_defaults() {
        let config = Config::parse("leadpulse.toml", GOOD, &|_| None).unwrap();
        let org = config.org("demo").unwrap();
        assert_eq!(org.windows, [7, 30]);
        assert_eq!(org.hot, HotRule { window_hours: 48, min_deals: 3 });
        assert_eq!(org.sources[0].verify.secrets().len(), 2);
        let class = |id, text| org.boards[0].class(id, text);
        assert_eq!(class(Some(2), None), Some(Class::Won));
        assert_eq!(class(None, Some("Won")), Some(Class::Won));
        assert_eq!(class(Some(1), Some("Won")), Some(Class::Contacted), "the id is better");
        assert_eq!(class(Some(9), Some("won")), None, "texts are exact");
        assert_eq!(config.ingest.listen.port(), 8080);
        assert!(config.redis.enabled);
    }

    #[test]
    fn the_environment_wins_over_the_file_and_the_own_name_over_the_alias() {
        let environment = |name: &str| {
            let value = match name {
                "LEADPULSE_INGEST_LISTEN" => "127.0.0.1:0",
                "REDIS_ENABLED" => "false",
                "CACHE_TTL_SECONDS" => "7",
                "LEADPULSE_QUERY_API_CACHE_TTL_SECONDS" => "9",
                _ => return None,
            };
            Some(value.to_owned())
        };
        let config = Config::parse("leadpulse.toml", GOOD, &environment).unwrap();
        assert_eq!(config.ingest.listen.port(), 0);
        assert!(!config.redis.enabled);
        assert_eq!(config.query_api.cache_ttl, Duration::from_secs(9));
    }

    #[test]
    fn all_problems_are_reported_at_once_each_with_its_place() {
        let text = r#"
[redis]
enabled = "perhaps"
[ingest]
listne = "127.0.0.1:1"
[[orgs]]
id = "Demo"
time_zone = "Mars/Phobos"
windows = [7, 7, -1]
[[orgs.sources]]
key = "a"
secrets = [{ label = "x", secret = "hunter2" }]
[[orgs.boards]]
name = "no id"
won = [1]
lost = [1, 2.5]
"#;
        let found = problems(text, &|name| (name == "CACHE_TTL_SECONDS").then(|| "soon".into()));
        let expected = [
            "leadpulse.toml:3:11: `redis.enabled` must be true or false, not string",
            "leadpulse.toml:5:1: unknown key `listne` in `ingest`",
            "environment variable CACHE_TTL_SECONDS: must be a whole number",
            "leadpulse.toml:7:6: `orgs[0].id` is `Demo`",
            "leadpulse.toml:8:13: `orgs[0].time_zone` `Mars/Phobos` is no IANA time zone",
            "leadpulse.toml:9:15: this window stands here twice",
            "leadpulse.toml:9:18: a window is a whole number of days",
            "leadpulse.toml:12:36: `orgs[0].sources[0].secrets[0].secret` must be `env:NAME` or `file:PATH`",
            "`orgs[0].sources[0].verify` is missing",
            "a board needs its `id`",
            "leadpulse.toml:16:12: `lost` lists label ids",
            "the label 1 of board 0 is both won and lost",
        ];
        for wanted in expected {
            assert!(
                found.iter().any(|problem| problem.contains(wanted)),
                "{wanted}\nnot in\n{found:#?}"
            );
        }
        assert!(!found.iter().any(|problem| problem.contains("hunter2")), "a secret was repeated");
    }

    #[test]
    fn a_header_that_holds_credentials_signs_no_body() {
        for key in ["header", "timestamp_header"] {
            let source = format!(
                "[[orgs]]\nid='demo'\n[[orgs.sources]]\nkey='x'\nverify='hmac'\n{key}='Authorization'\n\
                 secrets=[{{label='x',secret='env:S'}}]"
            );
            let found = problems(&source, &|_| None);
            assert!(found[0].contains("`authorization` holds credentials"), "{found:?}");
        }
    }

    #[test]
    fn an_address_for_operators_is_another_one() {
        let with = |admin: &str| {
            format!("[ingest]\nlisten = '127.0.0.1:80'\nadmin_listen = '{admin}'\n{GOOD}")
        };
        let other = Config::parse("leadpulse.toml", &with("127.0.0.1:81"), &|_| None).unwrap();
        assert_eq!(other.ingest.admin_listen.map(|address| address.port()), Some(81));
        let found = problems(&with("127.0.0.1:80"), &|_| None);
        assert!(found[0].contains("`ingest.admin_listen` is `ingest.listen`"), "{found:?}");
    }

    #[test]
    fn broken_toml_is_reported_with_its_line() {
        let found = problems("[[orgs]]\nid = \n", &|_| None);
        assert!(found[0].starts_with("leadpulse.toml:2:"), "{found:?}");
    }
}
