//! The commands that end by themselves.

use std::time::Duration;

use anyhow::{Context, Result};
use leadpulse_service::config::{self, Config};
use tokio::time::timeout;

use crate::{
    cli::{Quarantine, Streams},
    publish::Publisher,
    quarantine::{release, show},
    source::Secrets,
    stream::{Broker, plan},
};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub fn check_config(secrets: &Secrets) -> Result<()> {
    let sources = secrets.sources.len();
    let key = if secrets.quarantine_key.is_some() { "with" } else { "without" };
    println!("ok: {sources} sources, all secrets found, {key} a key for the quarantine");
    Ok(())
}

pub fn streams(config: &Config, action: &Streams) -> Result<()> {
    let (apply, yes) = match action {
        Streams::Plan => (false, false),
        Streams::Apply { yes } => (true, *yes),
    };
    run(plan::run(&config.nats, apply, yes))
}

pub fn quarantine(config: &Config, action: Quarantine) -> Result<()> {
    run(async {
        // To look, any broker will do; to release, the one that the service would take.
        let nats = config::Nats { require: Vec::new(), ..config.nats.clone() };
        let broker = Broker::connect(&nats).await?;
        timeout(CONNECT_WITHIN, broker.connected())
            .await
            .context("NATS can't be reached; is `nats.url` right?")?;
        let checked = broker.clone();
        let publisher = Publisher::new(broker, &config.ingest).await?;
        match action {
            Quarantine::List { filter, json } => {
                show::list(publisher.jetstream(), &filter, json).await
            }
            Quarantine::Show { entry } => show::show(publisher.jetstream(), entry).await,
            Quarantine::Release { filter, dry_run } => {
                checked.check(&config.nats.require).await?;
                let Secrets { sources, quarantine_key } = Secrets::resolve(config)?;
                let key = quarantine_key.as_ref();
                release::run(&publisher, &sources, key, &filter, dry_run).await
            }
        }
    })
}

fn run(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}
