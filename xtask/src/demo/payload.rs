//! Webhooks as monday.com writes them.

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rand::{Rng, rngs::StdRng};
use serde_json::{Map, Number, Value, json};

use super::{board::Board, history::Event};

/// What monday.com puts into `userId` when it was no human.
pub(super) const FORM: i64 = -6;
pub(super) const AUTOMATION: i64 = -4;
/// The hidden board on which subitems lie.
const SUBITEMS_BOARD: i64 = 9777;

/// A change of a column, as it is written into an event.
pub(super) struct Change<'a> {
    pub(super) column: &'a str,
    pub(super) kind: &'a str,
    pub(super) title: &'a str,
    pub(super) value: Value,
    pub(super) previous: Value,
}

/// Writes the webhooks about one item.
pub(super) struct Pen<'a> {
    pub(super) rng: &'a mut StdRng,
    pub(super) board: &'static Board,
    pub(super) item: i64,
    pub(super) name: String,
    pub(super) events: Vec<Event>,
}

impl Pen<'_> {
    /// A change of a column: the one kind that tells its own time, which is not that of its delivery.
    pub(super) fn column(&mut self, at: DateTime<Utc>, user: i64, change: Change<'_>) {
        let delay = TimeDelta::milliseconds(self.rng.random_range(250..2500));
        let changed_at = format!("{}{}", seconds(at), self.rng.random_range(0..10));
        let mut event = self.event("update_column_value", at + delay, user);
        event.insert("pulseId".into(), self.item.into());
        event.insert("pulseName".into(), self.name.as_str().into());
        event.insert("columnId".into(), change.column.into());
        event.insert("columnType".into(), change.kind.into());
        event.insert("columnTitle".into(), change.title.into());
        event.insert("value".into(), change.value);
        event.insert("previousValue".into(), change.previous);
        event.insert("changedAt".into(), number(&changed_at));
        self.push(at, event);
    }

    /// Any other event about the item; `more` are the fields of its kind.
    pub(super) fn plain(&mut self, kind: &str, at: DateTime<Utc>, user: i64, more: Value) {
        let mut event = self.event(kind, at, user);
        // The item's end is told with `itemId` only.
        let ends = ["archive_pulse", "delete_pulse", "restore_pulse"].contains(&kind);
        if ends {
            event.insert("itemId".into(), self.item.into());
            event.insert("itemName".into(), self.name.as_str().into());
        } else {
            event.insert("pulseId".into(), self.item.into());
        }
        if let Value::Object(more) = more {
            event.extend(more);
        }
        self.push(at, event);
    }

    /// A subitem, and what its creation does to the parent.
    pub(super) fn subitem(&mut self, at: DateTime<Utc>, user: i64) {
        let subitem = self.item * 10 + 7;
        let mut event = self.event("create_pulse", at, user);
        event.extend(object(json!({
            "boardId": SUBITEMS_BOARD, "pulseId": subitem, "itemId": subitem, "pulseName": "Send the contract",
            "groupId": "topics", "columnValues": {}, "parentItemId": self.item.to_string(),
            "parentItemBoardId": self.board.id.to_string(),
        })));
        self.push(at, event);
        let change = Change {
            column: "subitems",
            kind: "subtasks",
            title: "Subitems",
            value: json!({
                "linkedPulseIds": [{ "linkedPulseId": subitem }],
                "changed_at": at.format("%Y-%m-%d %H:%M:%S +0000").to_string(),
            }),
            previous: json!({}),
        };
        self.column(at + TimeDelta::milliseconds(180), user, change);
    }

    fn event(&mut self, kind: &str, delivered: DateTime<Utc>, user: i64) -> Map<String, Value> {
        let subscription = 501 + kind.bytes().map(i64::from).sum::<i64>() % 40;
        object(json!({
            "app": "monday", "type": kind, "triggerTime": iso(delivered), "subscriptionId": subscription,
            "isRetry": false, "userId": user, "originalTriggerUuid": null, "boardId": self.board.id,
            "triggerUuid": format!("{:032x}", self.rng.random::<u128>()),
        }))
    }

    fn push(&mut self, at: DateTime<Utc>, event: Map<String, Value>) {
        self.events.push(Event { at, body: json!({ "event": event }) });
    }
}

/// A user, as the import tells it.
pub(super) fn user_snapshot(id: i64, name: &str) -> Value {
    json!({ "event": {
        "type": "user_snapshot", "user_id": id.to_string(), "name": name,
        "email": format!("agent{id}@demo.example"), "kind": "member", "status": "active",
    }})
}

/// The same delivery once more, as monday.com retries: a new time, the same identity.
pub(super) fn retry(event: &Event) -> Value {
    let mut body = event.body.clone();
    if let Some(event_body) = body.get_mut("event").and_then(Value::as_object_mut) {
        event_body.insert("isRetry".into(), true.into());
        event_body.insert("triggerTime".into(), iso(event.at + TimeDelta::seconds(61)).into());
    }
    body
}

pub(super) fn iso(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Unix seconds with six decimals.
fn seconds(at: DateTime<Utc>) -> String {
    format!("{}.{:06}", at.timestamp(), at.timestamp_subsec_micros())
}

/// A number exactly as it is written: no float in between.
pub(super) fn number(text: &str) -> Value {
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
