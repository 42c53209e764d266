//! §1: the time and the identity of an event, and what kind of event it is.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    Arrival,
    instant::{MINUTE, Micros, parse_date_time, parse_unix_seconds},
    value::{integer, text},
};

/// The kinds of monday.md's table, whichever way they were spelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    CreatePulse,
    UpdateColumnValue,
    UpdateName,
    ArchivePulse,
    DeletePulse,
    RestorePulse,
    MoveIntoGroup,
    MoveIntoBoard,
    MoveSubitem,
    CreateUpdate,
    EditUpdate,
    DeleteUpdate,
    CreateColumn,
    ItemSnapshot,
    UserSnapshot,
    Unknown,
}

impl Kind {
    fn of(event_type: &str) -> Self {
        match event_type {
            "create_item" | "create_pulse" | "create_subitem" => Self::CreatePulse,
            "change_column_value"
            | "change_status_column_value"
            | "change_specific_column_value"
            | "change_subitem_column_value"
            | "update_column_value" => Self::UpdateColumnValue,
            "change_name" | "change_subitem_name" | "update_name" => Self::UpdateName,
            "item_archived" | "subitem_archived" | "archive_pulse" => Self::ArchivePulse,
            "item_deleted" | "subitem_deleted" | "delete_pulse" => Self::DeletePulse,
            "item_restored" | "restore_pulse" => Self::RestorePulse,
            "item_moved_to_any_group"
            | "item_moved_to_specific_group"
            | "move_pulse_into_group" => Self::MoveIntoGroup,
            "move_pulse_into_board" => Self::MoveIntoBoard,
            "move_subitem" => Self::MoveSubitem,
            "create_update" | "create_subitem_update" => Self::CreateUpdate,
            "edit_update" => Self::EditUpdate,
            "delete_update" => Self::DeleteUpdate,
            "create_column" => Self::CreateColumn,
            "item_snapshot" => Self::ItemSnapshot,
            "user_snapshot" => Self::UserSnapshot,
            _ => Self::Unknown,
        }
    }
}

/// One event with its own time and identity.
#[derive(Debug, Clone)]
pub struct Event {
    pub seq: u64,
    pub received_at: Micros,
    pub id: String,
    pub occurred_at: Micros,
    pub kind: Kind,
    pub json: Value,
}

impl Event {
    pub fn read(arrival: &Arrival) -> Self {
        let json: Value = serde_json::from_str(&arrival.event).unwrap_or(Value::Null);
        let kind = Kind::of(json["type"].as_str().unwrap_or_default());
        let event = Self {
            seq: arrival.seq,
            received_at: arrival.received_at,
            id: identity(&json),
            occurred_at: arrival.received_at,
            kind,
            json,
        };
        let own_time = own_time(&event.json, kind);
        Self { occurred_at: event.not_from_the_future(own_time), ..event }
    }

    /// A missing time is the arrival's; so is one more than 5 minutes after it.
    pub(super) fn not_from_the_future(&self, own_time: Option<Micros>) -> Micros {
        match own_time {
            Some(at) if at <= self.received_at + 5 * MINUTE => at,
            _ => self.received_at,
        }
    }

    /// The (board, item) whose row this event may change; subitems and what is not about an item have none.
    pub fn lead(&self) -> Option<(i64, i64)> {
        match self.kind {
            Kind::MoveSubitem | Kind::CreateColumn | Kind::UserSnapshot | Kind::Unknown => None,
            _ if self.is_subitem() => None,
            Kind::ItemSnapshot => Some((self.board_id()?, integer(&self.json["id"])?)),
            _ => Some((self.board_id()?, self.item_id()?)),
        }
    }

    pub fn board_id(&self) -> Option<i64> {
        integer(&self.json["boardId"])
    }

    fn item_id(&self) -> Option<i64> {
        integer(&self.json["pulseId"]).or_else(|| integer(&self.json["itemId"]))
    }

    fn is_subitem(&self) -> bool {
        let spelled = self.json["type"].as_str().is_some_and(|text| text.contains("subitem"));
        spelled || !self.json["parentItemId"].is_null()
    }

    /// A human did it; a form is −6, an automation −4. A snapshot is nobody's deed.
    pub fn is_by_a_human(&self) -> bool {
        self.kind != Kind::ItemSnapshot && integer(&self.json["userId"]).is_some_and(|id| id > 0)
    }

    pub(super) fn order(&self) -> (Micros, &str) {
        (self.occurred_at, &self.id)
    }
}

/// `"{subscriptionId}:{triggerUuid}"`, or the hash of what does not change from one delivery to the next.
fn identity(event: &Value) -> String {
    let subscription = match &event["subscriptionId"] {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    };
    if let (Some(subscription), Some(uuid)) = (subscription, event["triggerUuid"].as_str()) {
        return format!("{subscription}:{uuid}");
    }
    let mut lasting = event.clone();
    if let Value::Object(fields) = &mut lasting {
        fields.remove("triggerTime");
        fields.remove("isRetry");
    }
    // `Value` keeps its keys sorted and writes no white space.
    hex::encode(Sha256::digest(lasting.to_string()))
}

/// The first of the event's own times that exists and parses.
fn own_time(event: &Value, kind: Kind) -> Option<Micros> {
    let trigger_time = instant(&event["triggerTime"]);
    match kind {
        Kind::ItemSnapshot => return instant(&event["updated_at"]),
        Kind::UserSnapshot => return None,
        _ => {}
    }
    if let Some(at) = changed_at(&event["changedAt"]) {
        return Some(at);
    }
    if kind == Kind::CreatePulse {
        let columns = event["columnValues"].as_object().into_iter().flatten();
        let changes = columns.filter_map(|(_, value)| instant(&value["changed_at"]));
        return changes.chain(trigger_time).min();
    }
    trigger_time
}

fn changed_at(value: &Value) -> Option<Micros> {
    match value {
        Value::Number(number) => parse_unix_seconds(&number.to_string()),
        _ => parse_unix_seconds(&text(value)?),
    }
}

pub(super) fn instant(value: &Value) -> Option<Micros> {
    parse_date_time(value.as_str()?)
}
