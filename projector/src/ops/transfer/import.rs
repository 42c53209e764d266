//! Into the stream, under the message ids of before: what is there already is left out, however long ago
//! it came.

use std::{
    collections::{BTreeSet, HashSet},
    io::Read,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use async_nats::{HeaderMap, jetstream::context::PublishAckFuture};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use leadpulse_nats::{Envelope, envelope::MESSAGE_ID, streams};
use leadpulse_service::trace::{TRACEPARENT, TraceContext};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{
    Line, MASKED,
    file::{Checked, Lines},
};
use crate::{
    lane::Delivery,
    ops::Tools,
    reader::{
        ReadError,
        range::{Bounds, RangeReader, Select},
    },
    store::short_id,
};

/// Publishes on their way at once.
const WINDOW: usize = 256;
const ACKNOWLEDGED: Duration = Duration::from_secs(10);
/// What is published under no board and kind, because nobody can read it.
const UNREADABLE: &str = "leadpulse.events.unreadable.none.other";

#[derive(Debug, Clone, Default, Serialize)]
pub struct Imported {
    pub messages: u64,
    pub published: u64,
    /// Were in the stream already.
    pub known: u64,
    pub first_seq: Option<u64>,
    pub last_seq: Option<u64>,
}

/// Publishes what the stream does not have.
pub async fn import(
    tools: &Tools,
    file: impl Read + Send + 'static,
    checked: &Checked,
    watch: &(dyn Fn(u64) + Send + Sync),
) -> Result<Imported> {
    let known = known(tools).await?;
    check_mixing(checked, &known)?;
    let mut lines = Lines::open(file)?;
    let mut report = Imported::default();
    let mut waiting = Vec::new();
    while let Some(line) = lines.next()? {
        report.messages += 1;
        let message = message(line)?;
        if known.ids.contains(&short_id(&message.id)) {
            report.known += 1;
            continue;
        }
        let jetstream = &tools.jetstream;
        let publish = jetstream.publish_with_headers(
            message.subject,
            message.headers,
            message.payload.into(),
        );
        waiting.push(timeout(ACKNOWLEDGED, publish).await.context("NATS does not answer")??);
        if waiting.len() == WINDOW {
            settle(&mut report, &mut waiting).await?;
            watch(report.messages);
        }
    }
    settle(&mut report, &mut waiting).await?;
    watch(report.messages);
    Ok(report)
}

/// Pseudonyms must not stand among names by mistake.
fn check_mixing(checked: &Checked, known: &Known) -> Result<()> {
    let both = checked.orgs.intersection(&known.unmasked).next();
    let Some(org) = both.filter(|_| checked.head.masked && !checked.mixing) else { return Ok(()) };
    bail!(
        "the file is masked, and the stream has events of {org} that are not: pseudonyms would stand among \
         names. Import it into an instance of its own, or say that it is meant (--allow-masked, \
         allow_masked=true)"
    );
}

async fn settle(report: &mut Imported, waiting: &mut Vec<PublishAckFuture>) -> Result<()> {
    for ack in waiting.drain(..) {
        let ack = timeout(ACKNOWLEDGED, ack.into_future()).await.context("NATS does not answer")?;
        let ack = ack.context("the stream refuses a message; nothing after it was imported")?;
        if ack.duplicate {
            report.known += 1;
        } else {
            report.published += 1;
            report.first_seq.get_or_insert(ack.sequence);
            report.last_seq = report.last_seq.max(Some(ack.sequence));
        }
    }
    Ok(())
}

struct Message {
    id: String,
    subject: String,
    headers: HeaderMap,
    payload: Vec<u8>,
}

fn message(line: Line) -> Result<Message> {
    let trace_id = line.trace_id.and_then(|id| u128::from_str_radix(&id, 16).ok());
    match (line.envelope, line.raw) {
        (Some(raw), _) => {
            let envelope: Envelope = serde_json::from_str(raw.get())
                .with_context(|| format!("the message {} is no envelope", line.seq))?;
            let payload = raw.get().as_bytes().to_vec();
            Ok(Message::new(envelope.message_id(), envelope.subject(), payload, trace_id))
        }
        (None, Some(raw)) => {
            let payload =
                STANDARD.decode(raw).with_context(|| format!("the message {}", line.seq))?;
            Ok(Message::of(payload, trace_id))
        }
        (None, None) => bail!("the message {} has no content", line.seq),
    }
}

impl Message {
    fn new(id: String, subject: String, payload: Vec<u8>, trace_id: Option<u128>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, id.as_str());
        if let Some(trace_id) = trace_id {
            let parent_id = rand::random::<u64>().max(1);
            let trace = TraceContext { trace_id, parent_id, sampled: true };
            headers.insert(TRACEPARENT, trace.to_string().as_str());
        }
        Self { id, subject, headers, payload }
    }

    /// What was a message once, whether anybody can read it or not.
    fn of(payload: Vec<u8>, trace_id: Option<u128>) -> Self {
        match serde_json::from_slice::<Envelope>(&payload) {
            Ok(envelope) => Self::new(envelope.message_id(), envelope.subject(), payload, trace_id),
            Err(_) => Self::new(unreadable_id(&payload), UNREADABLE.to_owned(), payload, trace_id),
        }
    }
}

/// Puts one message of an earlier stream into the present one; gives its sequence.
pub(in crate::ops) async fn publish_again(
    tools: &Tools,
    payload: Vec<u8>,
    trace_id: Option<u128>,
) -> Result<u64> {
    let Message { subject, headers, payload, .. } = Message::of(payload, trace_id);
    let publish = tools.jetstream.publish_with_headers(subject, headers, payload.into());
    let ack = timeout(ACKNOWLEDGED, publish).await.context("NATS does not answer")??;
    let ack = timeout(ACKNOWLEDGED, ack.into_future()).await.context("NATS does not answer")?;
    Ok(ack.context("the stream refuses a message")?.sequence)
}

fn unreadable_id(payload: &[u8]) -> String {
    format!("unreadable:{}", hex::encode(Sha256::digest(payload)))
}

/// What the stream has.
#[derive(Default)]
struct Known {
    ids: HashSet<u128>,
    /// Orgs with events that are not masked.
    unmasked: BTreeSet<String>,
}

impl Known {
    fn add(&mut self, delivery: &Delivery) {
        match &delivery.envelope {
            Ok(envelope) => {
                self.ids.insert(short_id(&envelope.message_id()));
                if envelope.source != MASKED && !self.unmasked.contains(&envelope.org) {
                    self.unmasked.insert(envelope.org.clone());
                }
            }
            Err(_) => {
                self.ids.insert(short_id(&unreadable_id(&delivery.payload)));
            }
        }
    }
}

async fn known(tools: &Tools) -> Result<Known> {
    let (stream, seen) = match tools.stream().await {
        Ok(found) => found,
        Err(ReadError::NoStream) => {
            bail!("the stream {} is not there: `ingest streams apply` creates it", streams::EVENTS)
        }
        Err(error) => return Err(error.into()),
    };
    let bounds = Bounds::resolve(&stream, &seen, None, None).await?;
    let mut reader = RangeReader::open(&stream, &seen.identity, bounds, Select::default()).await?;
    let mut known = Known::default();
    while let Some(chunk) = reader.next().await? {
        chunk.iter().for_each(|delivery| known.add(delivery));
    }
    Ok(known)
}
