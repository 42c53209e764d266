//! From an envelope to what it says about a lead: the writes of spec.md §2, in the terms of the
//! board's mapping. Lenient: a field in an unknown shape says nothing, it never fails the event.

mod api;
pub(crate) mod object;
mod text;
mod webhook;

use chrono::NaiveDate;
use leadpulse_nats::{Envelope, Kind};
use leadpulse_service::config::Board;
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::mapping::Mapping;

pub use text::normalised_decimal;

/// A lead's identity. Ordered, so that a batch locks its rows in one order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::FromRow)]
pub struct LeadKey {
    pub org_id: String,
    pub board_id: i64,
    pub item_id: i64,
}

/// What one event says about one lead.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadEvent {
    pub key: LeadKey,
    pub seq: u64,
    pub trace_id: Option<Uuid>,
    pub event_id: String,
    /// Microseconds since 1970, like every instant of the fold.
    pub occurred_at: i64,
    pub act: Act,
    /// Done by a person, not by a form, an automation or an import (`userId` > 0).
    pub human: bool,
    pub writes: Vec<Write>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The lead was created on the board.
    Created,
    /// The lead as the API has it; `created_at` where it gave one.
    Snapshot {
        created_at: Option<i64>,
    },
    /// Somebody wrote an update (a comment).
    Commented,
    Other,
}

/// A write of one field at an instant: the event's own, but for the columns of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub at: i64,
    pub field: Field,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Field {
    Name(String),
    Group(String),
    Status(Option<Status>),
    Owner(Option<i64>),
    Amount(Option<Decimal>),
    Industry(Option<String>),
    NextCall(Option<NaiveDate>),
    Lifecycle(Lifecycle),
}

/// A status label as it was written: its stable id and its text of that moment.
#[derive(Debug, Clone, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub struct Status {
    #[n(0)]
    pub id: Option<i64>,
    #[n(1)]
    pub label: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
pub enum Lifecycle {
    #[n(0)]
    Active,
    #[n(1)]
    Archived,
    #[n(2)]
    Deleted,
}

impl Lifecycle {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Archived => "archived",
            Self::Deleted => "deleted",
        }
    }
}

/// One user of an org, as a `user_snapshot` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserEvent {
    pub org_id: String,
    pub user_id: i64,
    pub name: Option<String>,
    pub email: Option<String>,
    pub kind: Option<String>,
    pub status: Option<String>,
    pub occurred_at: i64,
    pub event_id: String,
    pub seq: u64,
}

/// What an event means to the read models.
#[derive(Debug, Clone, PartialEq)]
pub enum Meaning {
    Lead(LeadEvent),
    User(UserEvent),
    /// It stays in the stream and makes no row; why, for the metrics.
    Nothing(&'static str),
}

/// Decodes an envelope with the mapping of today.
pub fn decode(envelope: &Envelope, seq: u64, trace_id: Option<Uuid>, mapping: &Mapping) -> Meaning {
    let Some(event) = object::parse(envelope.event.get()) else {
        return Meaning::Nothing("no object");
    };
    if envelope.kind == Kind::UserSnapshot {
        return decode_user(envelope, seq, &event);
    }
    if !is_about_a_lead(&envelope.kind) {
        return Meaning::Nothing("not about a lead");
    }
    let (Some(board_id), Some(item_id)) = (envelope.board_id, envelope.item_id) else {
        return Meaning::Nothing("no item");
    };
    let Some(board) = mapping.board(&envelope.org, board_id) else {
        return Meaning::Nothing("board not mapped");
    };
    if is_subitem(&event) {
        return Meaning::Nothing("subitem");
    }
    let occurred_at = envelope.occurred_at.timestamp_micros();
    let (act, writes) = if envelope.kind == Kind::ItemSnapshot {
        api::snapshot(&event, occurred_at, envelope.received_at, board)
    } else {
        read(&envelope.kind, &event, occurred_at, board)
    };
    Meaning::Lead(LeadEvent {
        key: LeadKey { org_id: envelope.org.clone(), board_id, item_id },
        seq,
        trace_id,
        event_id: envelope.event_id.clone(),
        occurred_at,
        act,
        human: !matches!(act, Act::Snapshot { .. })
            && text::integer(event.get("userId")).is_some_and(|user| user > 0),
        writes,
    })
}

fn is_about_a_lead(kind: &Kind) -> bool {
    !matches!(kind, Kind::Other(_) | Kind::CreateColumn | Kind::MoveSubitem | Kind::UserSnapshot)
}

fn is_subitem(event: &Map<String, Value>) -> bool {
    let has_parent = event.get("parentItemId").is_some_and(|parent| !parent.is_null());
    has_parent || event.get("type").and_then(Value::as_str).is_some_and(Kind::names_subitem)
}

fn read(
    kind: &Kind,
    event: &Map<String, Value>,
    occurred_at: i64,
    board: &Board,
) -> (Act, Vec<Write>) {
    let mut writes = Vec::new();
    let mut write = |field| writes.push(Write { at: occurred_at, field });
    if let Some(name) = webhook::name(kind, event) {
        write(Field::Name(name));
    }
    if let Some(group) = webhook::group(event) {
        write(Field::Group(group));
    }
    let act = match kind {
        Kind::CreatePulse => {
            let columns = event.get("columnValues").and_then(Value::as_object);
            for (column, value) in columns.into_iter().flatten() {
                webhook::column(board, column, value).into_iter().for_each(&mut write);
            }
            Act::Created
        }
        Kind::UpdateColumnValue => {
            if let Some(column) = event.get("columnId").and_then(Value::as_str) {
                let value = event.get("value").unwrap_or(&Value::Null);
                webhook::column(board, column, value).into_iter().for_each(&mut write);
            }
            Act::Other
        }
        Kind::ArchivePulse => {
            write(Field::Lifecycle(Lifecycle::Archived));
            Act::Other
        }
        Kind::DeletePulse => {
            write(Field::Lifecycle(Lifecycle::Deleted));
            Act::Other
        }
        Kind::RestorePulse => {
            write(Field::Lifecycle(Lifecycle::Active));
            Act::Other
        }
        Kind::CreateUpdate => Act::Commented,
        _ => Act::Other,
    };
    (act, writes)
}

fn decode_user(envelope: &Envelope, seq: u64, event: &Map<String, Value>) -> Meaning {
    let Some(user_id) = text::integer(event.get("user_id")) else {
        return Meaning::Nothing("user without an id");
    };
    let field = |name: &str| text::plain(event.get(name));
    Meaning::User(UserEvent {
        org_id: envelope.org.clone(),
        user_id,
        name: field("name"),
        email: field("email"),
        kind: field("kind"),
        status: field("status"),
        occurred_at: envelope.occurred_at.timestamp_micros(),
        event_id: envelope.event_id.clone(),
        seq,
    })
}

/// The roles that a column has on a board: which fields a write of it changes.
fn roles(board: &Board, column: &str) -> impl Iterator<Item = Role> {
    let columns = &board.columns;
    [
        (&columns.status, Role::Status),
        (&columns.owner, Role::Owner),
        (&columns.amount, Role::Amount),
        (&columns.industry, Role::Industry),
        (&columns.next_call, Role::NextCall),
    ]
    .into_iter()
    .filter(|(mapped, _)| mapped.as_deref() == Some(column))
    .map(|(_, role)| role)
    .collect::<Vec<_>>()
    .into_iter()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Status,
    Owner,
    Amount,
    Industry,
    NextCall,
}
