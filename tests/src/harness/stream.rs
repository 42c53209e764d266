//! Looking into the stream of record.

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use chrono::DateTime;
use serde_json::{Value, value::RawValue};

use super::{Ground, PATIENCE, eventually};
use crate::naive::{Arrival, Micros};

/// One message of the stream, taken apart.
#[derive(Debug, Clone)]
pub struct Message {
    pub seq: u64,
    pub subject: String,
    pub message_id: Option<String>,
    pub trace_parent: Option<String>,
    pub envelope: Value,
    /// The event as it came, byte for byte.
    pub event: String,
    pub received_at: Micros,
}

impl Message {
    pub fn arrival(&self) -> Arrival {
        Arrival { seq: self.seq, received_at: self.received_at, event: self.event.clone() }
    }
}

impl Ground {
    /// The whole stream of events, in its order.
    pub async fn stream(&self) -> Vec<Message> {
        eventually("the stream can be read", PATIENCE, async || self.try_stream().await.ok()).await
    }

    async fn try_stream(&self) -> Result<Vec<Message>> {
        let client = async_nats::connect(self.nats.url()).await?;
        let mut stream = jetstream::new(client).get_stream("LEADPULSE_EVENTS").await?;
        let last = stream.info().await?.state.last_sequence;
        let mut messages = Vec::new();
        for seq in 1..=last {
            let raw = stream.get_raw_message(seq).await?;
            let header = |name: &str| raw.headers.get(name).map(|value| value.as_str().to_owned());
            let envelope: Value = serde_json::from_slice(&raw.payload)?;
            let parts: std::collections::HashMap<&str, &RawValue> =
                serde_json::from_slice(&raw.payload)?;
            let received_at = envelope["received_at"].as_str().context("no received_at")?;
            messages.push(Message {
                seq,
                subject: raw.subject.to_string(),
                message_id: header("Nats-Msg-Id"),
                trace_parent: header("traceparent"),
                event: parts.get("event").context("no event")?.get().to_owned(),
                received_at: DateTime::parse_from_rfc3339(received_at)?.timestamp_micros(),
                envelope,
            });
        }
        Ok(messages)
    }
}
