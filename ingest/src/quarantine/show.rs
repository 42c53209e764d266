//! `ingest quarantine list|show`: what was refused, without any credential in it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull::OrderedConfig},
    stream::Stream,
};
use chrono::{DateTime, Utc};
use clap::Args;
use futures_util::StreamExt;
use leadpulse_nats::{instant, streams};
use leadpulse_service::cli::plain;
use tokio::time::timeout;

use super::entry::Entry;

const WITHIN: Duration = Duration::from_secs(5);

/// Which entries are meant; all, if nothing is said.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Not before this: an instant such as 2026-03-02T10:00:00Z, or an age such as 90m, 2h, 3d.
    #[arg(long, value_parser = instant::parse_or_age)]
    since: Option<DateTime<Utc>>,
    /// Of this source only.
    #[arg(long)]
    source: Option<String>,
    /// For this reason only, such as `auth_signature`.
    #[arg(long)]
    reason: Option<String>,
}

impl Filter {
    fn means(&self, entry: &Entry) -> bool {
        self.since.is_none_or(|since| entry.received_at >= since)
            && self.source.as_ref().is_none_or(|source| *source == entry.source)
            && self.reason.as_ref().is_none_or(|reason| *reason == entry.reason)
    }
}

pub(super) async fn open(jetstream: &jetstream::Context) -> Result<Stream> {
    timeout(WITHIN, jetstream.get_stream(streams::QUARANTINE))
        .await
        .context("NATS does not answer; is `nats.url` right?")?
        .context("the quarantine can't be read")
}

/// Calls `visit` with each entry that is meant, oldest first.
pub(super) async fn each(
    stream: &Stream,
    filter: &Filter,
    mut visit: impl AsyncFnMut(u64, Entry) -> Result<()>,
) -> Result<()> {
    if stream.get_info().await?.state.messages == 0 {
        return Ok(());
    }
    let all = OrderedConfig { deliver_policy: DeliverPolicy::All, ..OrderedConfig::default() };
    let mut messages = stream.create_consumer(all).await?.messages().await?;
    let mut unreadable = 0_u64;
    let mut seen = 0;
    loop {
        let Ok(next) = timeout(WITHIN, messages.next()).await else {
            // What was there may have expired meanwhile.
            let now =
                timeout(WITHIN, stream.get_info()).await.context("NATS does not answer")??;
            ensure!(now.state.messages == 0 || now.state.last_sequence <= seen, "NATS is too slow");
            break;
        };
        let message = next.context("the quarantine ended early")??;
        let info = message.info().map_err(anyhow::Error::from_boxed)?;
        seen = info.stream_sequence;
        match Entry::read(&message.payload) {
            Ok(entry) if filter.means(&entry) => visit(seen, entry).await?,
            Ok(_) => {}
            Err(error) => {
                unreadable += 1;
                eprintln!("{seen}: left out, it can't be read: {error:#}");
            }
        }
        if info.pending == 0 {
            break;
        }
    }
    ensure!(unreadable == 0, "{unreadable} entries can't be read; all others were");
    Ok(())
}

/// One line for each entry; as JSON lines, with everything but the body.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub async fn list(jetstream: &jetstream::Context, filter: &Filter, json: bool) -> Result<()> {
    let stream = open(jetstream).await?;
    if !json {
        println!(
            "{:>8}  {:<24}  {:<20}  {:<20}  {:>6}",
            "entry", "received", "source", "reason", "status"
        );
    }
    let mut count = 0_u64;
    each(&stream, filter, async |seq, entry| {
        count += 1;
        if json {
            let mut line = serde_json::to_value(&entry)?;
            line["entry"] = seq.into();
            if let Some(line) = line.as_object_mut() {
                line.remove("body");
                line.remove("sealed");
            }
            println!("{}", plain(&line.to_string()));
        } else {
            let received = entry.received_at.format("%Y-%m-%dT%H:%M:%S%.3fZ");
            let Entry { source, reason, status, .. } = &entry;
            // A stranger's source is whatever stood in the URL.
            let source = plain(source);
            println!("{seq:>8}  {received}  {source:<20}  {reason:<20}  {status:>6}");
        }
        Ok(())
    })
    .await?;
    if !json {
        println!("{count} entries");
    }
    Ok(())
}

/// One entry, with its body as text.
#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub async fn show(jetstream: &jetstream::Context, seq: u64) -> Result<()> {
    let stream = open(jetstream).await?;
    let Ok(message) = stream.get_raw_message(seq).await else {
        bail!("there is no entry {seq}; `ingest quarantine list` shows what there is");
    };
    let entry = Entry::read(&message.payload)?;
    let body = String::from_utf8_lossy(&entry.body()?).into_owned();
    let mut shown = serde_json::to_value(&entry)?;
    shown["body"] = body.into();
    shown["sealed"] = entry.sealed.is_some().into();
    println!("{}", plain(&format!("{shown:#}")));
    Ok(())
}
