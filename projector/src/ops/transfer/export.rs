//! Out of the stream.

use std::io::Write as _;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use leadpulse_nats::Envelope;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{End, FORM, Head, Line, MASKED, Mask};
use crate::{
    lane::Delivery,
    ops::Tools,
    reader::range::{Bounds, Edge, RangeReader, Select},
};

/// How hard zstd tries.
const LEVEL: i32 = 3;

#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    pub from_seq: u64,
    pub to_seq: u64,
    pub messages: u64,
    /// Messages that are no envelope; they are in the file as they are, but not in a masked one.
    pub unreadable: u64,
    pub masked: bool,
}

/// What part of the stream.
#[derive(Debug, Clone, Default)]
pub struct Part {
    pub since: Option<Edge>,
    pub until: Option<Edge>,
    pub select: Select,
}

/// An export on its way: whoever carries it away asks for the next piece, so that no more than one is in memory.
pub struct Export {
    reader: RangeReader,
    mask: Option<Mask>,
    /// Compresses what goes out; none after the end, and where nothing is compressed.
    packer: Option<zstd::Encoder<'static, Vec<u8>>>,
    head: Option<Head>,
    digest: Sha256,
    report: Exported,
    ended: bool,
}

impl Export {
    /// Packed is compressed with zstd.
    pub async fn open(
        tools: &Tools,
        part: &Part,
        mask: Option<Mask>,
        packed: bool,
    ) -> Result<Self> {
        let (stream, seen) = tools.stream().await?;
        let bounds = Bounds::resolve(&stream, &seen, part.since, part.until).await?;
        let masked = mask.is_some();
        let head = Head {
            leadpulse_export: FORM,
            stream: seen.identity.name.clone(),
            from_seq: bounds.from,
            to_seq: bounds.to,
            masked,
            exported_at: Utc::now(),
        };
        let Bounds { from, to } = bounds;
        let reader =
            RangeReader::open(&stream, &seen.identity, bounds, part.select.clone()).await?;
        let report = Exported { from_seq: from, to_seq: to, messages: 0, unreadable: 0, masked };
        let packer = packed.then(|| zstd::Encoder::new(Vec::new(), LEVEL)).transpose()?;
        let (head, digest) = (Some(head), Sha256::new());
        Ok(Self { reader, mask, packer, head, digest, report, ended: false })
    }

    /// The next piece of the file; none after the end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        loop {
            let lines = self.lines().await?;
            let Some(packer) = &mut self.packer else { return Ok(lines.map(String::into_bytes)) };
            let piece = match &lines {
                Some(lines) => {
                    packer.write_all(lines.as_bytes())?;
                    std::mem::take(packer.get_mut())
                }
                None => match self.packer.take() {
                    Some(packer) => packer.finish()?,
                    None => return Ok(None),
                },
            };
            // A compressor waits until it has seen enough.
            if !piece.is_empty() {
                return Ok(Some(piece));
            }
        }
    }

    /// The next lines; none after the end.
    async fn lines(&mut self) -> Result<Option<String>> {
        if let Some(head) = self.head.take() {
            return Ok(Some(serde_json::to_string(&head)? + "\n"));
        }
        if self.ended {
            return Ok(None);
        }
        let Some(chunk) = self.reader.next().await? else {
            self.ended = true;
            let sha256 = hex::encode(std::mem::take(&mut self.digest).finalize());
            let end = End { messages: self.report.messages, sha256 };
            return Ok(Some(serde_json::to_string(&end)? + "\n"));
        };
        let mut lines = String::new();
        for delivery in &chunk {
            if delivery.envelope.is_err() {
                self.report.unreadable += 1;
                if self.mask.is_some() {
                    // Nobody knows what is in it.
                    continue;
                }
            }
            lines.push_str(&serde_json::to_string(&line(delivery, self.mask.as_ref())?)?);
            lines.push('\n');
            self.report.messages += 1;
        }
        self.digest.update(lines.as_bytes());
        Ok(Some(lines))
    }

    /// Messages read, of how many.
    pub fn progress(&self) -> (u64, u64) {
        let bounds = self.reader.bounds();
        ((self.reader.read() + 1).saturating_sub(bounds.from), bounds.len())
    }

    /// What is in it so far.
    pub fn report(&self) -> &Exported {
        &self.report
    }
}

fn line(delivery: &Delivery, mask: Option<&Mask>) -> Result<Line> {
    let trace_id = delivery.trace_id.map(|id| id.simple().to_string());
    let line = Line { seq: delivery.seq, trace_id, envelope: None, raw: None };
    let Ok(envelope) = &delivery.envelope else {
        return Ok(Line { raw: Some(STANDARD.encode(&delivery.payload)), ..line });
    };
    let text = match mask {
        Some(mask) => {
            let event = mask.event(&envelope.org, envelope.board_id, envelope.event.get())?;
            let (event, source) = (RawValue::from_string(event)?, MASKED.to_owned());
            let masked = Envelope { event, source, ..envelope.clone() };
            serde_json::to_string(&masked)?
        }
        // The bytes as they are in the stream. A line break among them would break the line.
        None if delivery.payload.contains(&b'\n') => {
            return Ok(Line { raw: Some(STANDARD.encode(&delivery.payload)), ..line });
        }
        None => String::from_utf8(delivery.payload.to_vec())?,
    };
    Ok(Line { envelope: Some(RawValue::from_string(text)?), ..line })
}
