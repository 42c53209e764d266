//! `ingest streams plan|apply`: the streams as they are against the definitions in `nats/streams`.
//! Nothing that is there is changed without being asked for twice.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::{
    ConnectOptions,
    jetstream::{self, context::GetStreamErrorKind, stream::Config},
};
use leadpulse_service::config;
use tokio::time::timeout;

use super::{addresses, durability};

const WITHIN: Duration = Duration::from_secs(5);

/// What has to be done for one stream.
enum Step {
    Nothing,
    Create,
    Change(Vec<String>),
}

/// Prints the plan, and carries it out if asked to.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub async fn run(config: &config::Nats, apply: bool, yes: bool) -> Result<()> {
    let options = ConnectOptions::new().name("ingest streams").connection_timeout(WITHIN);
    let client = timeout(WITHIN, async_nats::connect_with_options(addresses(config)?, options))
        .await
        .context("NATS does not answer")?
        .context("NATS can't be reached; is `nats.url` right?")?;
    let jetstream = jetstream::new(client);
    let (mut pending, mut differs) = (false, false);
    for definition in super::definitions(config)? {
        let name = &definition.name;
        let step = step(&jetstream, &definition).await?;
        differs |= matches!(step, Step::Change(_));
        match &step {
            Step::Nothing => println!("{name}: as defined"),
            Step::Create => println!("{name}: missing, to be created"),
            Step::Change(drift) => {
                println!("{name}: differs, to be changed");
                drift.iter().for_each(|setting| println!("  {setting}"));
            }
        }
        match step {
            Step::Create if apply => {
                jetstream.create_stream(&definition).await.context("the server refuses")?;
                println!("{name}: created");
            }
            Step::Change(_) if apply && yes => {
                jetstream.update_stream(&definition).await.context("the server refuses")?;
                println!("{name}: changed");
            }
            Step::Change(_) if apply => {
                bail!("{name} holds data; to change it, say `ingest streams apply --yes`")
            }
            Step::Nothing => {}
            _ => pending = true,
        }
    }
    if pending {
        let yes = if differs { " --yes" } else { "" };
        println!("nothing was changed; `ingest streams apply{yes}` does it");
    }
    Ok(())
}

async fn step(jetstream: &jetstream::Context, definition: &Config) -> Result<Step> {
    let error = match jetstream.get_stream(&definition.name).await {
        Ok(stream) => {
            let drift = durability::drift(definition, &stream.cached_info().config);
            return Ok(if drift.is_empty() { Step::Nothing } else { Step::Change(drift) });
        }
        Err(error) => error,
    };
    match error.kind() {
        GetStreamErrorKind::JetStream(cause)
            if cause.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
        {
            Ok(Step::Create)
        }
        _ => Err(error).with_context(|| format!("the stream {} can't be read", definition.name)),
    }
}
