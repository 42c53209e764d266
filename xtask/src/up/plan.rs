//! What `up` has to know of the configuration: who the first org is, how its webhooks are signed, and
//! where the services listen. The services check the rest themselves.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::Options;
use crate::{demo, local::State, programs::SERVICES, servers::port_is_free};

const DEMO_SECRET: &str = "DEMO_SIGNING_SECRET";

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) file: PathBuf,
    pub(super) org: String,
    pub(super) source: String,
    /// `env:NAME` or `file:PATH`.
    secret: String,
    pub(super) demo: bool,
    /// The configuration names no key for the quarantine.
    pub(super) lacks_quarantine_key: bool,
    /// Where each service is told to listen; none: wherever there is a free port.
    pub(super) listen: [Option<SocketAddr>; 3],
}

impl Plan {
    pub(super) fn read(options: &Options) -> Result<Self> {
        let demo_file = crate::root().join("deploy/demo/leadpulse.toml");
        let file = options.config.clone().unwrap_or(demo_file);
        let file = fs::canonicalize(&file)
            .with_context(|| format!("can't read the configuration {}", file.display()))?;
        let text = fs::read_to_string(&file)
            .with_context(|| format!("can't read the configuration {}", file.display()))?;
        let mut plan = Self::parse(&file, &text)?;
        plan.demo &= !options.no_demo;
        for (service, listen) in SERVICES.iter().zip(plan.listen) {
            if let Some(address) = listen {
                check_free(service, address, &plan.file)?;
            }
        }
        Ok(plan)
    }

    fn parse(file: &Path, text: &str) -> Result<Self> {
        let shown = file.display();
        let table: Table = text.parse().with_context(|| format!("{shown} is no TOML"))?;
        let first = |table: &Table, key: &str| Some(table.get(key)?.as_array()?.first()?.clone());
        let org = first(&table, "orgs").with_context(|| format!("{shown} has no [[orgs]]"))?;
        let org_id = text_of(&org, "id").with_context(|| format!("{shown}: orgs[0] has no id"))?;
        let sources = org.get("sources").and_then(Value::as_array).cloned().unwrap_or_default();
        let source = sources
            .iter()
            .find(|source| text_of(source, "verify").as_deref() == Some("jwt"))
            .with_context(|| {
                format!("{shown}: the org {org_id} has no source with verify = \"jwt\"")
            })?;
        let mut listen = [None; 3];
        for (listen, service) in listen.iter_mut().zip(SERVICES) {
            *listen = listen_address(&table, service)?;
        }
        Ok(Self {
            file: file.to_owned(),
            demo: org_id == "demo" && has_demo_boards(&org),
            lacks_quarantine_key: !table
                .get("ingest")
                .and_then(Value::as_table)
                .is_some_and(|ingest| ingest.contains_key("quarantine_key")),
            source: text_of(source, "key")
                .with_context(|| format!("{shown}: a source has no key"))?,
            secret: lasting_secret(source)
                .with_context(|| format!("{shown}: the source has no secret"))?,
            org: org_id,
            listen,
        })
    }

    /// The secret that signs webhooks of the first source. The demo's own is made up once.
    pub(super) fn secret(&self, state: &mut State) -> Result<String> {
        match self.secret.split_once(':') {
            Some(("env", name)) => match env::var(name) {
                Ok(secret) => Ok(secret),
                Err(_) if name == DEMO_SECRET => made_once(&mut state.demo_secret),
                Err(_) => bail!(
                    "the environment variable {name}, a secret of {}, is not set",
                    self.file.display()
                ),
            },
            Some(("file", path)) => Ok(fs::read_to_string(path)
                .with_context(|| format!("can't read the secret {path}"))?
                .trim()
                .to_owned()),
            _ => bail!("{}: a secret must be `env:NAME` or `file:PATH`", self.file.display()),
        }
    }

    /// What refused webhooks are sealed with where the configuration says nothing, so that a wrong secret
    /// loses none of them here either.
    pub(super) fn quarantine_key(&self, state: &mut State) -> Result<Option<String>> {
        let told = env::var_os("LEADPULSE_INGEST_QUARANTINE_KEY").is_some();
        let ours = self.lacks_quarantine_key && !told;
        ours.then(|| made_once(&mut state.quarantine_key)).transpose()
    }

    /// The variable that the services look the secret up in, if xtask has to set it.
    pub(super) fn secret_variable(&self) -> Option<&str> {
        self.secret.strip_prefix("env:")
    }
}

fn made_once(kept: &mut Option<String>) -> Result<String> {
    match kept {
        Some(secret) => Ok(secret.clone()),
        None => Ok(kept.insert(demo::new_secret()?).clone()),
    }
}

fn text_of(value: &Value, key: &str) -> Option<String> {
    Some(value.get(key)?.as_str()?.to_owned())
}

/// The first secret without an end, else the first one.
fn lasting_secret(source: &Value) -> Option<String> {
    let secrets = source.get("secrets")?.as_array()?;
    let lasting = secrets.iter().find(|secret| secret.get("until").is_none());
    text_of(lasting.or(secrets.first())?, "secret")
}

fn has_demo_boards(org: &Value) -> bool {
    let boards = org.get("boards").and_then(Value::as_array).cloned().unwrap_or_default();
    let has = |id: i64| {
        boards.iter().any(|board| board.get("id").and_then(Value::as_integer) == Some(id))
    };
    demo::BOARDS.into_iter().all(has)
}

/// The environment wins over the file, as in the services.
fn listen_address(table: &Table, service: &str) -> Result<Option<SocketAddr>> {
    let section = service.replace('-', "_");
    let variable = listen_variable(service);
    let text = env::var(&variable).ok().or_else(|| text_of(table.get(&section)?, "listen"));
    let Some(text) = text else { return Ok(None) };
    let address: SocketAddr = text
        .parse()
        .with_context(|| format!("`{section}.listen` is `{text}`, which is no address and port"))?;
    // Port 0 means any: xtask has to know which one, so it chooses.
    Ok((address.port() != 0).then_some(address))
}

pub(super) fn listen_variable(service: &str) -> String {
    format!("LEADPULSE_{}_LISTEN", service.replace('-', "_").to_uppercase())
}

fn check_free(service: &str, address: SocketAddr, file: &Path) -> Result<()> {
    if port_is_free(address) {
        return Ok(());
    }
    let section = service.replace('-', "_");
    bail!(
        "{address}, where {service} is to listen, is taken: stop what listens there, or set `{section}.listen` in {} to a free address",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[ingest]
listen = "0.0.0.0:18080"
[projector]
listen = "127.0.0.1:0"
[[orgs]]
id = "acme"
[[orgs.sources]]
key = "by-token"
verify = "token"
secrets = [{ label = "a", secret = "env:A" }]
[[orgs.sources]]
key = "by-jwt"
verify = "jwt"
secrets = [{ label = "old", secret = "env:OLD", until = 2020-01-01T00:00:00Z }, { label = "new", secret = "env:NEW" }]
"#;

    #[test]
    fn the_first_org_and_its_first_signed_source_count() {
        let plan = Plan::parse(Path::new("x.toml"), FILE).unwrap();
        assert_eq!((plan.org.as_str(), plan.source.as_str()), ("acme", "by-jwt"));
        assert_eq!(plan.secret_variable(), Some("NEW"));
        assert!(!plan.demo);
        assert_eq!(plan.listen, ["0.0.0.0:18080".parse().ok(), None, None]);
    }

    #[test]
    fn the_demo_is_for_the_demos_own_boards() {
        let text = fs::read_to_string(crate::root().join("deploy/demo/leadpulse.toml")).unwrap();
        assert!(Plan::parse(Path::new("x.toml"), &text).unwrap().demo);
        let other = text.replace("id = 9002", "id = 9003");
        assert!(!Plan::parse(Path::new("x.toml"), &other).unwrap().demo);
    }
}
