//! Into the stream, under the message ids of before: what is there already is left out, however long ago
//! it came.

use std::{
    collections::HashSet,
    io::{BufRead, BufReader, Read},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::{HeaderMap, jetstream::context::PublishAckFuture};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use leadpulse_nats::{Envelope, envelope::MESSAGE_ID, streams};
use leadpulse_service::trace::{TRACEPARENT, TraceContext};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::time::timeout;

use super::{End, Head, Line};
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
/// Bytes of a line: twice the largest message, which may stand in it in base64. A file without line breaks
/// must not be read into memory whole.
const LONGEST: u64 = 4 << 20;
/// zstd's first bytes.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
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

/// A file, read line by line.
struct Lines {
    text: Text,
    head: Head,
    digest: Sha256,
    messages: u64,
}

impl Lines {
    fn open(file: impl Read + Send + 'static) -> Result<Self> {
        let mut plain = BufReader::new(file);
        let packed = plain.fill_buf()?.starts_with(&MAGIC);
        let reader: Box<dyn BufRead + Send> = if packed {
            Box::new(BufReader::new(zstd::Decoder::with_buffer(plain)?))
        } else {
            Box::new(plain)
        };
        let mut text = Text { reader, line: 0 };
        let first = text.next()?.context("the file is empty")?;
        Ok(Self { text, head: Head::parse(&first)?, digest: Sha256::new(), messages: 0 })
    }

    /// The next message; none at the end, which must be there and fit.
    fn next(&mut self) -> Result<Option<Line>> {
        let Some(text) = self.text.next()? else {
            bail!("the file is not whole: it breaks off after {} messages", self.messages);
        };
        if let Ok(end) = serde_json::from_str::<End>(&text) {
            let sha256 = hex::encode(std::mem::take(&mut self.digest).finalize());
            let found = End { messages: self.messages, sha256 };
            ensure!(
                found == end,
                "the file was changed: its lines are not those that its end tells of"
            );
            return Ok(None);
        }
        let line = serde_json::from_str(&text)
            .with_context(|| format!("the file is broken in line {}", self.text.line))?;
        self.digest.update(text.as_bytes());
        self.digest.update(b"\n");
        self.messages += 1;
        Ok(Some(line))
    }
}

/// Lines of a bounded length, counted.
struct Text {
    reader: Box<dyn BufRead + Send>,
    line: u64,
}

impl Text {
    fn next(&mut self) -> Result<Option<String>> {
        self.line += 1;
        let line = self.line;
        let mut text = Vec::new();
        let read = (&mut self.reader).take(LONGEST + 1).read_until(b'\n', &mut text);
        if read.with_context(|| format!("the file can't be read in line {line}"))? == 0 {
            return Ok(None);
        }
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        ensure!(
            text.len() as u64 <= LONGEST,
            "line {line} of the file is longer than {} MiB, and no message is: the file was damaged or is \
             none of `projector export`; export it again",
            LONGEST >> 20
        );
        let text = String::from_utf8(text);
        Ok(Some(text.with_context(|| format!("line {line} of the file is no text"))?))
    }
}

/// Reads a file to its end: its head, and how many messages it has.
pub fn check(file: impl Read + Send + 'static) -> Result<(Head, u64)> {
    let mut lines = Lines::open(file)?;
    while lines.next()?.is_some() {}
    Ok((lines.head, lines.messages))
}

/// Publishes what the stream does not have.
pub async fn import(
    tools: &Tools,
    file: impl Read + Send + 'static,
    watch: &(dyn Fn(u64) + Send + Sync),
) -> Result<Imported> {
    let known = known(tools).await?;
    let mut lines = Lines::open(file)?;
    let mut report = Imported::default();
    let mut waiting = Vec::new();
    while let Some(line) = lines.next()? {
        report.messages += 1;
        let message = message(line)?;
        if known.contains(&short_id(&message.id)) {
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

/// The ids of all that the stream has.
async fn known(tools: &Tools) -> Result<HashSet<u128>> {
    let (stream, seen) = match tools.stream().await {
        Ok(found) => found,
        Err(ReadError::NoStream) => {
            bail!("the stream {} is not there: `ingest streams apply` creates it", streams::EVENTS)
        }
        Err(error) => return Err(error.into()),
    };
    let bounds = Bounds::resolve(&stream, &seen, None, None).await?;
    let mut reader = RangeReader::open(&stream, &seen.identity, bounds, Select::default()).await?;
    let mut known = HashSet::new();
    let id = |delivery: &Delivery| match &delivery.envelope {
        Ok(envelope) => short_id(&envelope.message_id()),
        Err(_) => short_id(&unreadable_id(&delivery.payload)),
    };
    while let Some(chunk) = reader.next().await? {
        known.extend(chunk.iter().map(id));
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, repeat};

    use super::*;

    const HEAD: &str = r#"{"leadpulse_export":1,"stream":"S","from_seq":1,"to_seq":1,"masked":false,"exported_at":"2026-01-01T00:00:00Z"}"#;

    #[test]
    fn a_line_without_an_end_is_refused_with_its_number_before_it_fills_the_memory() {
        let endless = || repeat(b'x').take(1 << 40);
        let said = check(endless()).unwrap_err().to_string();
        assert!(said.starts_with("line 1 of the file is longer than 4 MiB"), "{said}");
        let head = format!("{HEAD}\n{{\"seq\":1,\"raw\":\"\"}}\n");
        let said = check(Cursor::new(head).chain(endless())).unwrap_err().to_string();
        assert!(
            said.starts_with("line 3 of the file") && said.ends_with("export it again"),
            "{said}"
        );
    }

    #[test]
    fn a_line_that_is_no_message_is_named_by_its_number() {
        let said = |rest: &[u8]| {
            let file = Cursor::new([HEAD.as_bytes(), b"\n", rest].concat());
            check(file).unwrap_err().to_string()
        };
        assert_eq!(said(b"{\"seq\":1}\nrubbish\n"), "the file is broken in line 3");
        assert_eq!(said(b"\xff\n"), "line 2 of the file is no text");
    }
}
