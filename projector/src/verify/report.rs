//! What a comparison found.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::event::LeadKey;

/// Differences that are named; the others are counted.
const NAMED: usize = 1000;

/// One field, or one whole row, that is not what the stream says.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// `lead`, `agent`, `user`, `dead letter` or `position`.
    pub what: &'static str,
    pub org_id: String,
    /// Of a lead `board/item`, of an agent `agent/window`, of a user or a letter its number.
    pub key: String,
    /// The column, or `row` where a whole row is missing or nobody knows it.
    pub field: &'static str,
    pub table: Option<String>,
    pub stream: Option<String>,
    /// Of a lead: to find the events behind it.
    pub lead: Option<LeadKey>,
    pub events: Vec<Event>,
    /// Events behind it beyond those.
    pub more_events: u64,
}

/// An event behind a difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub seq: u64,
    pub kind: String,
    pub event_id: String,
    pub occurred_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The sequence at which tables and stream were compared.
    pub seq: u64,
    /// The tables were made with another mapping than the one of today: they are bound to differ.
    pub other_mapping: Option<String>,
    /// Rows that are right, whose states are of a version that did not remember the leads' messages yet.
    pub older_states: u64,
    pub leads: u64,
    pub agents: u64,
    pub users: u64,
    pub letters: u64,
    /// Agents that waited for their figures just then.
    pub pending_agents: u64,
    pub passes: u32,
    pub peak_bytes: usize,
    pub differences: Vec<Difference>,
    /// Differences beyond those that are named.
    pub more: u64,
    /// Leads among those that are named whose events were not looked for, because they are too many.
    pub leads_without_events: u64,
}

impl Verdict {
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty() && self.older_states == 0
    }

    pub(super) fn note(&mut self, difference: Difference) {
        if self.differences.len() < NAMED {
            self.differences.push(difference);
        } else {
            self.more += 1;
        }
    }

    pub fn to_json(&self) -> Value {
        json!({
            "equal": self.is_equal(),
            "seq": self.seq,
            "other_mapping": self.other_mapping,
            "older_states": self.older_states,
            "leads": self.leads,
            "agents": self.agents,
            "users": self.users,
            "dead_letters": self.letters,
            "pending_agents": self.pending_agents,
            "passes": self.passes,
            "peak_bytes": self.peak_bytes,
            "differences": self.differences.iter().map(Difference::to_json).collect::<Vec<_>>(),
            "more": self.more,
            "leads_without_events": self.leads_without_events,
        })
    }
}

impl Difference {
    pub(super) fn whole(what: &'static str, key: String, said: String) -> Self {
        Self {
            what,
            org_id: String::new(),
            key,
            field: "row",
            table: None,
            stream: Some(said),
            lead: None,
            events: Vec::new(),
            more_events: 0,
        }
    }

    pub(super) fn of_lead(
        key: &LeadKey,
        field: &'static str,
        table: Option<String>,
        stream: Option<String>,
    ) -> Self {
        Self {
            what: "lead",
            org_id: key.org_id.clone(),
            key: format!("{}/{}", key.board_id, key.item_id),
            field,
            table,
            stream,
            lead: Some(key.clone()),
            events: Vec::new(),
            more_events: 0,
        }
    }

    fn to_json(&self) -> Value {
        let events = self.events.iter().map(|event| {
            json!({
                "seq": event.seq,
                "kind": event.kind,
                "event_id": event.event_id,
                "occurred_at": event.occurred_at,
            })
        });
        json!({
            "what": self.what,
            "org": self.org_id,
            "key": self.key,
            "field": self.field,
            "table": self.table,
            "stream": self.stream,
            "events": events.collect::<Vec<_>>(),
            "more_events": self.more_events,
        })
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        write!(
            f,
            "{} {} {}: {} is {} in the table, {} by the stream",
            self.what,
            self.org_id,
            self.key,
            self.field,
            side(&self.table),
            side(&self.stream)
        )?;
        for event in &self.events {
            write!(
                f,
                "\n    {} {} {} at {}",
                event.seq, event.kind, event.event_id, event.occurred_at
            )?;
        }
        if self.more_events > 0 {
            write!(
                f,
                "\n    … and {} more events: `projector explain lead` has all",
                self.more_events
            )?;
        }
        Ok(())
    }
}
