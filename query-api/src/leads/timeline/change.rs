//! What an event changed: one row beside the next.

use projector::{
    event::{Act, LeadEvent, Lifecycle},
    fold::{LeadRow, State},
};
use serde::Serialize;

use crate::value::{instant, money};

/// One thing that happened; `from` and `to` are a field's value before and after, where it is about one.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    what: &'static str,
    from: Option<String>,
    to: Option<String>,
}

pub(super) fn changes(
    before: Option<&LeadRow>,
    after: Option<&LeadRow>,
    event: &LeadEvent,
) -> Vec<Change> {
    let Some(after) = after else { return Vec::new() };
    let mut found = Vec::new();
    if before.is_none() {
        let what = match event.act {
            Act::Created => "created",
            Act::Snapshot { .. } => "imported",
            Act::Commented | Act::Other => "first_seen",
        };
        found.push(Change { what, from: None, to: None });
    }
    let mut tell = |what, read: &dyn Fn(&LeadRow) -> Option<String>| {
        let (from, to) = (before.and_then(read), read(after));
        if from != to {
            found.push(Change { what, from, to });
        }
    };
    tell("renamed", &|row| row.name.clone());
    tell("moved", &|row| row.group_id.clone());
    tell("assigned", &|row| row.assigned_user_id.map(|id| id.to_string()));
    tell("status_changed", &|row| {
        row.status_label.clone().or_else(|| row.status_id.map(|id| id.to_string()))
    });
    tell("amount_changed", &|row| row.deal_amount.map(money));
    tell("industry_changed", &|row| row.industry.clone());
    tell("next_call_changed", &|row| row.next_call_date.map(|date| date.to_string()));
    tell("touched", &|row| row.first_touch_at.map(instant));
    let was = before.map_or(State::Open, |row| row.state);
    if was != after.state {
        let what = match after.state {
            State::Open => "reopened",
            State::Won => "won",
            State::Lost => "lost",
        };
        let of = |state: State| Some(state.as_str().to_owned());
        found.push(Change { what, from: of(was), to: of(after.state) });
    }
    let was = before.map_or(Lifecycle::Active, |row| row.lifecycle);
    if was != after.lifecycle {
        let what = match after.lifecycle {
            Lifecycle::Active => "restored",
            Lifecycle::Archived => "archived",
            Lifecycle::Deleted => "deleted",
        };
        found.push(Change { what, from: None, to: None });
    }
    if event.act == Act::Commented {
        found.push(Change { what: "commented", from: None, to: None });
    }
    found
}
