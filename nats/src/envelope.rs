//! One message of the stream.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{instant, kind::Kind};

/// The version of this format. A reader refuses what is newer than it knows.
pub const VERSION: u8 = 1;

/// The header that lets JetStream know an event again.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";

/// A verified event: who sent it, what it is, when it happened, and the raw `event` object itself.
///
/// `ingest` writes it around a borrowed event (`Envelope<&RawValue>`), readers own theirs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope<E = Box<RawValue>> {
    pub v: u8,
    pub org: String,
    pub source: String,
    /// What makes two deliveries the same event (spec.md §1).
    pub event_id: String,
    pub kind: Kind,
    pub board_id: Option<i64>,
    pub item_id: Option<i64>,
    #[serde(with = "instant::rfc3339")]
    pub occurred_at: DateTime<Utc>,
    #[serde(with = "instant::rfc3339")]
    pub received_at: DateTime<Utc>,
    pub event: E,
}

impl<E> Envelope<E> {
    /// The id under which the stream deduplicates: one event of one org.
    pub fn message_id(&self) -> String {
        [self.org.as_str(), self.event_id.as_str()].join(":")
    }

    pub fn subject(&self) -> String {
        subject(&self.org, self.board_id, &self.kind)
    }
}

/// `leadpulse.events.{org}.{board}.{kind}`; the board is `none` where the event has none.
pub fn subject(org: &str, board_id: Option<i64>, kind: &Kind) -> String {
    let mut digits = itoa::Buffer::new();
    let board = board_id.map_or("none", |id| digits.format(id));
    // Joined at once it is one piece of memory of the right size, for every webhook.
    ["leadpulse.events", org, board, kind.token()].join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_event_survives_byte_for_byte() {
        let raw = r#"{"type": "x",  "changedAt":1772445600.62810640, "z":1, "a":"א\u0000"}"#;
        let event: &RawValue = serde_json::from_str(raw).unwrap();
        let at = crate::instant::parse("2026-03-02T10:00:00.628106Z").unwrap();
        let envelope = Envelope {
            v: VERSION,
            org: "demo".into(),
            source: "crm".into(),
            event_id: "1:2".into(),
            kind: Kind::of("brand new.kind >"),
            board_id: Some(-5),
            item_id: None,
            occurred_at: at,
            received_at: at,
            event,
        };
        let wire = serde_json::to_vec(&envelope).unwrap();
        let read: Envelope = serde_json::from_slice(&wire).unwrap();
        assert_eq!(read.event.get(), raw);
        assert_eq!(read.occurred_at, at);
        assert_eq!(read.kind.as_str(), "brand new.kind >");
        assert_eq!(read.subject(), "leadpulse.events.demo.-5.other");
        assert_eq!(read.message_id(), "demo:1:2");
    }
}
