//! The events behind each field of a lead (spec.md §2), read from the stream.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use serde::Serialize;
use serde_json::Value;
use sqlx::Connection;

use crate::{
    event::{Act, Field, LeadEvent, LeadKey, Write},
    fold::LeadRow,
    ops::{Tools, fields},
    reader::{lead::LeadHistory, range::Bounds},
    store::{self, LeftOut},
};

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedLead {
    pub org_id: String,
    pub board_id: i64,
    pub item_id: i64,
    /// Events that count, and such that wait in the dead letters or were skipped.
    pub events: usize,
    pub left_out: usize,
    pub fields: Vec<ExplainedField>,
    /// Is the row what its events make it?
    pub agrees: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedField {
    pub field: String,
    /// What the events make it, …
    pub value: Value,
    /// … and what the table has, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored: Option<Value>,
    pub because: &'static str,
    pub causes: Vec<Cause>,
}

/// An event that a field comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Cause {
    pub seq: u64,
    pub event_id: String,
    pub kind: String,
    pub occurred_at: DateTime<Utc>,
    pub by_person: bool,
}

/// A write, and the event that made it.
type Written<'e> = (&'e LeadEvent, &'e Write);

pub async fn lead(tools: &Tools, key: &LeadKey) -> Result<Option<ExplainedLead>> {
    let Some(board) = tools.mapping.board(&key.org_id, key.board_id) else { return Ok(None) };
    let (stream, seen) = tools.stream().await?;
    let identity = &seen.identity;
    let mut connection = tools.pool.acquire().await?;
    // All of one instant: a lane that goes on meanwhile must not look like a row that is wrong.
    let begin = "begin isolation level repeatable read read only";
    let mut snapshot = connection.begin_with(begin).await?;
    let position = store::positions(&mut snapshot, identity).await?;
    let left_out = LeftOut::load(&mut snapshot).await?;
    let stored = store::load_rows(&mut snapshot, std::slice::from_ref(key)).await;
    snapshot.rollback().await?;
    let stored = stored.context("the row can't be read")?.remove(key);
    let stored = stored.map(|(row, _)| fields::of(&row)).unwrap_or_default();
    let lane = crate::lane::bucket(&key.org_id, key.board_id, key.item_id);
    let bounds = Bounds { from: seen.first.max(1), to: position.of_bucket(lane) };
    let history =
        LeadHistory::read(&stream, identity, bounds, key, &tools.mapping, &left_out).await?;
    // Kept until here: no more boards are read at once than there are connections for it.
    drop(connection);
    let Some((_, row)) = history.fold(board) else { return Ok(None) };
    ensure!(seen.first <= 1, "the stream begins at {}: what came before is gone", seen.first);
    let explained = Explain { history: &history, row: &row, board };
    let fields: Vec<ExplainedField> = fields::of(&row)
        .into_iter()
        .map(|(name, value)| {
            let (because, causes) = explained.field(&name);
            let known = stored.get(&name).cloned().unwrap_or_default();
            let stored = (known != value).then_some(known);
            ExplainedField { field: name, value, stored, because, causes }
        })
        .collect();
    Ok(Some(ExplainedLead {
        org_id: key.org_id.clone(),
        board_id: key.board_id,
        item_id: key.item_id,
        events: history.events.len(),
        left_out: history.left_out.len(),
        agrees: fields.iter().all(|field| field.stored.is_none()),
        fields,
    }))
}

struct Explain<'e> {
    history: &'e LeadHistory,
    row: &'e LeadRow,
    board: &'e leadpulse_service::config::Board,
}

impl<'e> Explain<'e> {
    fn field(&self, name: &str) -> (&'static str, Vec<Cause>) {
        let row = self.row;
        match name {
            "name" => ("the last name", self.last(|field| matches!(field, Field::Name(_)))),
            "group_id" => ("the last group", self.last(|field| matches!(field, Field::Group(_)))),
            "status_id" | "status_label" | "state" => ("the last status", self.last(is_status)),
            "assigned_user_id" => ("the last owner", self.last(is_owner)),
            "assigned_at" => {
                ("the start of the owner's unbroken run", self.at(row.assigned_at, is_owner))
            }
            "deal_amount" => {
                ("the last amount", self.last(|field| matches!(field, Field::Amount(_))))
            }
            "industry" => ("the last industry", self.last(|f| matches!(f, Field::Industry(_)))),
            "next_call_date" => {
                ("the last next call", self.last(|f| matches!(f, Field::NextCall(_))))
            }
            "lifecycle" => (
                "the last archiving, deletion or restoration",
                self.last(|field| matches!(field, Field::Lifecycle(_))),
            ),
            "closed_won_at" => (
                "the start of the unbroken run of won labels",
                self.at(row.closed_won_at, is_status),
            ),
            "closed_lost_at" => (
                "the start of the unbroken run of lost labels",
                self.at(row.closed_lost_at, is_status),
            ),
            "closed_by_user_id" => {
                ("the owner when it was won, else the first one after", self.closer())
            }
            "entered_at" | "entered_source" => self.entered(),
            "first_touch_at" => ("the first touch by a person", self.first_touch()),
            "last_activity_at" => (
                "the last event by a person",
                self.events(|event| event.human && self.is_at(event, row.last_activity_at)),
            ),
            "last_event_at" => (
                "the latest event",
                self.events(|event| self.is_at(event, Some(row.last_event_at))),
            ),
            _ => (
                "the event with the highest sequence",
                self.events(|event| event.seq == row.last_seq),
            ),
        }
    }

    /// Every event once, by its id: a redelivery is the same event.
    fn all(&self) -> impl Iterator<Item = &'e LeadEvent> {
        let mut first = BTreeMap::new();
        for (event, _) in &self.history.events {
            first.entry(event.event_id.as_str()).or_insert(event);
        }
        first.into_values()
    }

    fn events(&self, means: impl Fn(&LeadEvent) -> bool) -> Vec<Cause> {
        let events = self.history.events.iter().map(|(event, _)| event);
        events.filter(|event| means(event)).map(|event| self.cause(event)).collect()
    }

    fn writes(&self, of: fn(&Field) -> bool) -> Vec<Written<'e>> {
        let mut writes: Vec<Written<'e>> = self
            .all()
            .flat_map(|event| event.writes.iter().map(move |write| (event, write)))
            .filter(|(_, write)| of(&write.field))
            .collect();
        writes.sort_by(|a, b| (a.1.at, &a.0.event_id).cmp(&(b.1.at, &b.0.event_id)));
        writes
    }

    fn last(&self, of: fn(&Field) -> bool) -> Vec<Cause> {
        self.writes(of).last().map(|(event, _)| self.cause(event)).into_iter().collect()
    }

    /// The write at this instant; of several the first.
    fn at(&self, at: Option<DateTime<Utc>>, of: fn(&Field) -> bool) -> Vec<Cause> {
        let Some(at) = at.map(|at| at.timestamp_micros()) else { return Vec::new() };
        let writes = self.writes(of);
        let found = writes.iter().find(|(_, write)| write.at == at);
        found.map(|(event, _)| self.cause(event)).into_iter().collect()
    }

    fn closer(&self) -> Vec<Cause> {
        let Some(won_at) = self.row.closed_won_at.map(|at| at.timestamp_micros()) else {
            return Vec::new();
        };
        let writes = self.writes(is_owner);
        let somebody = |write: &Write| matches!(write.field, Field::Owner(Some(_)));
        let in_force = writes.iter().rev().find(|(_, write)| write.at <= won_at);
        let in_force = in_force.filter(|(_, write)| somebody(write));
        let later = || writes.iter().find(|(_, write)| write.at > won_at && somebody(write));
        in_force.or_else(later).map(|(event, _)| self.cause(event)).into_iter().collect()
    }

    fn entered(&self) -> (&'static str, Vec<Cause>) {
        let at = Some(self.row.entered_at);
        match self.row.entered_source {
            "api" => (
                "the creation as monday.com's API tells it",
                self.events(|event| match event.act {
                    Act::Snapshot { created_at } => {
                        created_at == at.map(|at| at.timestamp_micros())
                    }
                    Act::Created | Act::Commented | Act::Other => false,
                }),
            ),
            "created" => (
                "the earliest creation",
                self.events(|event| event.act == Act::Created && self.is_at(event, at)),
            ),
            _ => ("the earliest event", self.events(|event| self.is_at(event, at))),
        }
    }

    fn first_touch(&self) -> Vec<Cause> {
        let at = self.row.first_touch_at.map(|at| at.timestamp_micros());
        let touches = |write: &Write| match &write.field {
            Field::NextCall(date) => date.is_some(),
            Field::Status(Some(status)) => {
                self.board.class(status.id, status.label.as_deref()).is_some()
            }
            _ => false,
        };
        self.events(|event| {
            let commented = event.act == Act::Commented && Some(event.occurred_at) == at;
            let wrote = || event.writes.iter().any(|w| Some(w.at) == at && touches(w));
            event.human && event.act != Act::Created && (commented || wrote())
        })
    }

    fn is_at(&self, event: &LeadEvent, at: Option<DateTime<Utc>>) -> bool {
        at.is_some_and(|at| at.timestamp_micros() == event.occurred_at)
    }

    fn cause(&self, event: &LeadEvent) -> Cause {
        let message = self.history.events.iter().find(|(known, _)| known.seq == event.seq);
        let kind = message.and_then(|(_, delivery)| delivery.envelope.as_ref().ok());
        Cause {
            seq: event.seq,
            event_id: event.event_id.clone(),
            kind: kind.map(|envelope| envelope.kind.as_str().to_owned()).unwrap_or_default(),
            occurred_at: instant::from_micros(event.occurred_at).unwrap_or_default(),
            by_person: event.human,
        }
    }
}

fn is_status(field: &Field) -> bool {
    matches!(field, Field::Status(_))
}

fn is_owner(field: &Field) -> bool {
    matches!(field, Field::Owner(_))
}
