//! From a verified body to a record for the stream: what the event is, which event it is, and when it
//! happened (spec.md §1). The event itself is kept as it came, byte for byte.
//!
//! monday.com's fields come and go by year, so only an object `event` with a text `type` is asked for;
//! everything else may be missing, misspelt or of another type, and the event is stored all the same.

mod fields;
mod identity;
mod text;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use leadpulse_nats::{Envelope, Kind, envelope, instant};
use serde_json::value::RawValue;

use crate::{answer::Refusal, verify::Verified};
use fields::Fields;
pub use text::readable;

/// What the envelope adds to an event, usually: its buffer does not have to grow.
const AROUND_BYTES: usize = 320;

/// Beyond it a message of the stream (`max_msg_size`, 2 MiB) has no room for its headers. Only what is
/// made longer gets there: bytes that are no text, and a type that fills the body and stands in the
/// envelope again.
const MAX_RECORD_BYTES: usize = 2 * 1024 * 1024 - 4096;

/// A message for the stream: the envelope of one event, ready to be sent. Only a [`Verified`] body
/// becomes one.
#[derive(Debug)]
pub struct Record {
    subject: String,
    message_id: String,
    payload: Bytes,
    kind: Kind,
}

impl Record {
    pub fn of(verified: &Verified) -> Result<Self, Refusal> {
        let body = readable(verified.body())?;
        let event = text::event_of(&body)?;
        let envelope = envelop(event, verified)?;
        let mut payload = Vec::with_capacity(event.get().len() + AROUND_BYTES);
        serde_json::to_writer(&mut payload, &envelope).map_err(|_| Refusal::NotJson)?;
        if payload.len() > MAX_RECORD_BYTES {
            return Err(Refusal::RecordTooLarge);
        }
        Ok(Self {
            subject: envelope.subject(),
            message_id: envelope.message_id(),
            payload: payload.into(),
            kind: envelope.kind,
        })
    }

    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub fn message_id(&self) -> &str {
        &self.message_id
    }

    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub fn kind(&self) -> &Kind {
        &self.kind
    }
}

fn envelop<'e>(
    event: &'e RawValue,
    verified: &Verified,
) -> Result<Envelope<&'e RawValue>, Refusal> {
    let received_at = instant::cut(verified.received_at());
    let fields = Fields::of(event)?;
    let kind = Kind::of(&fields.kind()?);
    let occurred_at = occurred_at(&kind, &fields, received_at);
    let source = verified.source();
    Ok(Envelope {
        v: envelope::VERSION,
        org: source.org.clone(),
        source: source.key.clone(),
        event_id: identity::of(event, &fields),
        board_id: fields.board_id(),
        item_id: fields.item_id(&kind),
        kind,
        occurred_at,
        received_at,
        event,
    })
}

/// The event's own time: the first that exists and parses (spec.md §1).
fn occurred_at(kind: &Kind, fields: &Fields<'_>, received_at: DateTime<Utc>) -> DateTime<Utc> {
    let own = match kind {
        Kind::ItemSnapshot => fields.updated_at(),
        _ => None,
    };
    let created = || match kind {
        Kind::CreatePulse => fields.column_times().chain(fields.trigger_time()).min(),
        _ => None,
    };
    let at = own
        .or_else(|| fields.changed_at())
        .or_else(created)
        .or_else(|| fields.trigger_time())
        .unwrap_or(received_at);
    if at > instant::latest_believed(received_at) { received_at } else { at }
}

#[cfg(test)]
mod tests;
