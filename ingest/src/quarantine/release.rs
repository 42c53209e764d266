//! `ingest quarantine release`: refused webhooks are verified again, with the secrets of now and at the
//! time when they came, and published as they would have been.

use anyhow::Result;
use leadpulse_service::trace::TraceContext;

use super::{
    SealingKey,
    entry::Entry,
    show::{self, Filter},
};
use crate::{
    event::Record,
    publish::Publisher,
    source::Sources,
    verify::{Rejected, Unverified},
};

/// What came of the entries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    released: u64,
    duplicates: u64,
    refused: u64,
    failed: u64,
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
pub async fn run(
    publisher: &Publisher,
    sources: &Sources,
    key: Option<&SealingKey>,
    filter: &Filter,
    dry_run: bool,
) -> Result<()> {
    let stream = show::open(publisher.jetstream()).await?;
    let mut counts = Counts::default();
    show::each(&stream, filter, async |seq, entry| {
        let record = match verify_again(&entry, sources, key) {
            Ok(record) => record,
            Err(why) => {
                counts.refused += 1;
                println!("{seq}: still refused: {why}");
                return Ok(());
            }
        };
        if dry_run {
            counts.released += 1;
            println!("{seq}: would be released as {}", record.message_id());
            return Ok(());
        }
        match publisher.publish(&record, &TraceContext::continue_or_start(None)).await {
            Ok(stored) => {
                let known = if stored.duplicate { ", which the stream had already" } else { "" };
                println!("{seq}: released as event {}{known}", stored.seq);
                counts.released += u64::from(!stored.duplicate);
                counts.duplicates += u64::from(stored.duplicate);
                // Released twice after the duplicate window, it would stand in the stream twice.
                stream.delete_message(seq).await?;
            }
            Err(refusal) => {
                counts.failed += 1;
                println!("{seq}: stays, {refusal}");
            }
        }
        Ok(())
    })
    .await?;
    let Counts { released, duplicates, refused, failed } = counts;
    let verb = if dry_run { "would be released" } else { "released" };
    println!(
        "{released} {verb}, {duplicates} known already, {refused} still refused, {failed} not stored"
    );
    anyhow::ensure!(failed == 0, "{failed} entries could not be stored; run the command again");
    Ok(())
}

fn verify_again(
    entry: &Entry,
    sources: &Sources,
    key: Option<&SealingKey>,
) -> Result<Record, String> {
    if entry.truncated {
        return Err("its body was not kept whole".to_owned());
    }
    if entry.may_lack_a_proof() {
        return Err("an earlier version kept it, without what it had twice".to_owned());
    }
    let (source, stranger) = sources.of(&entry.source);
    if stranger {
        return Err("no source has this key".to_owned());
    }
    if let Some(org) = entry.org.as_ref().filter(|org| **org != source.org) {
        return Err(format!("it came for the org `{org}`; its source is of `{}` now", source.org));
    }
    let body = entry.body().map_err(|error| error.to_string())?.into();
    let proof = entry.proof(key);
    let unverified = Unverified { source, body, received_at: entry.received_at, proof: &proof };
    let verified = unverified.verify().map_err(|rejected| match (rejected, &entry.sealed) {
        (Rejected::Missing, None) => {
            "its proof was not kept; set `ingest.quarantine_key` to keep proofs sealed".to_owned()
        }
        (Rejected::Missing, Some(_)) => {
            "its proof was sealed under another `ingest.quarantine_key`, or there was none"
                .to_owned()
        }
        (rejected, _) => rejected.to_string(),
    })?;
    Record::of(&verified).map_err(|refusal| refusal.to_string())
}
