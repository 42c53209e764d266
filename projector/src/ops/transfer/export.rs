//! Out of the stream.

use std::io::Write;

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::Utc;
use leadpulse_nats::Envelope;
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::{End, FORM, Head, Line, Mask};
use crate::{
    lane::Delivery,
    ops::Tools,
    reader::range::{Bounds, Edge, RangeReader, Select},
};

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

/// Writes that part of the stream. The writer compresses, or does not; to finish it is the caller's.
pub async fn export(
    tools: &Tools,
    part: &Part,
    mask: Option<&Mask>,
    out: &mut impl Write,
    watch: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Exported> {
    let (stream, seen) = tools.stream().await?;
    let bounds = Bounds::resolve(&stream, &seen, part.since, part.until).await?;
    let head = Head {
        leadpulse_export: FORM,
        stream: seen.identity.name.clone(),
        from_seq: bounds.from,
        to_seq: bounds.to,
        masked: mask.is_some(),
        exported_at: Utc::now(),
    };
    writeln!(out, "{}", serde_json::to_string(&head)?)?;
    let (mut messages, mut unreadable, mut digest) = (0, 0, Sha256::new());
    let mut reader =
        RangeReader::open(&stream, &seen.identity, bounds, part.select.clone()).await?;
    while let Some(chunk) = reader.next().await? {
        for delivery in chunk {
            if delivery.envelope.is_err() {
                unreadable += 1;
                if mask.is_some() {
                    // Nobody knows what is in it.
                    continue;
                }
            }
            let line = serde_json::to_string(&line(&delivery, mask)?)?;
            digest.update(line.as_bytes());
            digest.update(b"\n");
            writeln!(out, "{line}")?;
            messages += 1;
        }
        watch(reader.read().saturating_sub(bounds.from) + 1, bounds.len());
    }
    let end = End { messages, sha256: hex::encode(digest.finalize()) };
    writeln!(out, "{}", serde_json::to_string(&end)?)?;
    let Bounds { from, to } = bounds;
    Ok(Exported { from_seq: from, to_seq: to, messages, unreadable, masked: mask.is_some() })
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
            let masked = Envelope { event: RawValue::from_string(event)?, ..envelope.clone() };
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
