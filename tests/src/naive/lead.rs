//! §2: the row of one lead, as a function of the set of its events.

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde_json::Value;

use super::{
    event::{Event, Kind, instant},
    instant::Micros,
    value::{Status, api, text, webhook},
};
use crate::rules::{Board, Label};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnteredSource {
    Api,
    Created,
    FirstSeen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    Won,
    Lost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    Active,
    Archived,
    Deleted,
}

/// One row of LeadFact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lead {
    pub board_id: i64,
    pub item_id: i64,
    pub name: Option<String>,
    pub group_id: Option<String>,
    pub status_id: Option<i64>,
    pub status_label: Option<String>,
    pub assigned_user_id: Option<i64>,
    pub assigned_at: Option<Micros>,
    pub deal_amount: Option<Decimal>,
    pub industry: Option<String>,
    pub next_call_date: Option<NaiveDate>,
    pub entered_at: Micros,
    pub entered_source: EnteredSource,
    pub first_touch_at: Option<Micros>,
    pub last_activity_at: Option<Micros>,
    pub state: State,
    pub closed_won_at: Option<Micros>,
    pub closed_lost_at: Option<Micros>,
    pub closed_by_user_id: Option<i64>,
    pub lifecycle: Lifecycle,
    pub last_event_at: Micros,
    pub last_seq: u64,
}

/// One write of one field. The later one wins, whatever order they arrived in.
#[derive(Debug, Clone)]
struct Write<T> {
    at: Micros,
    event_id: String,
    value: T,
}

impl Lead {
    /// `events` are all events of this item, in any order; there is at least one.
    pub fn of(board: &Board, item_id: i64, events: &[&Event]) -> Self {
        let owners = column(events, board.owner.as_deref(), webhook::owner, api::owner);
        let statuses = column(events, board.status.as_deref(), webhook::status, api::status);
        let amounts = column(events, board.amount.as_deref(), webhook::amount, api::amount);
        let industries =
            column(events, board.industry.as_deref(), webhook::industry, api::industry);
        let calls = column(events, board.next_call.as_deref(), webhook::next_call, api::next_call);

        let status = last(&statuses).unwrap_or_default();
        let state = state_of(board, &status);
        let closed_at = |wanted: State| {
            (state == wanted).then(|| start_of_last_run(&statuses, |s| state_of(board, s)))
        };
        let closed_won_at = closed_at(State::Won).flatten();
        let owner = last(&owners).flatten();
        let (entered_at, entered_source) = entered(events);
        Self {
            board_id: board.id,
            item_id,
            name: last(&sorted(events.iter().filter_map(|e| write(e, name(e)?)))),
            group_id: last(&sorted(events.iter().filter_map(|e| write(e, group(e)?)))),
            status_id: status.id,
            status_label: status.text,
            assigned_user_id: owner,
            assigned_at: owner.and_then(|_| start_of_last_run(&owners, |owner| *owner)),
            deal_amount: last(&amounts).flatten(),
            industry: last(&industries).flatten(),
            next_call_date: last(&calls).flatten(),
            entered_at,
            entered_source,
            first_touch_at: touches(board, events).min(),
            last_activity_at: events
                .iter()
                .filter(|e| e.is_by_a_human())
                .map(|e| e.occurred_at)
                .max(),
            state,
            closed_won_at,
            closed_lost_at: closed_at(State::Lost).flatten(),
            closed_by_user_id: closed_won_at.and_then(|at| closer(&owners, at)),
            lifecycle: last(&sorted(events.iter().filter_map(|e| write(e, lifecycle(e)?))))
                .unwrap_or(Lifecycle::Active),
            last_event_at: events.iter().map(|e| e.occurred_at).max().unwrap_or_default(),
            last_seq: events.iter().map(|e| e.seq).max().unwrap_or_default(),
        }
    }

    pub fn response(&self) -> Option<Micros> {
        self.first_touch_at.map(|touch| touch - self.entered_at)
    }

    pub fn time_to_close(&self) -> Option<Micros> {
        self.closed_won_at.map(|won| won - self.entered_at)
    }
}

fn write<T>(event: &Event, value: T) -> Option<Write<T>> {
    Some(Write { at: event.occurred_at, event_id: event.id.clone(), value })
}

fn sorted<T>(writes: impl Iterator<Item = Write<T>>) -> Vec<Write<T>> {
    let mut writes: Vec<Write<T>> = writes.collect();
    writes.sort_by(|a, b| (a.at, a.event_id.as_bytes()).cmp(&(b.at, b.event_id.as_bytes())));
    writes
}

fn last<T: Clone>(writes: &[Write<T>]) -> Option<T> {
    writes.last().map(|write| write.value.clone())
}

/// All writes of one mapped column, in their order.
fn column<T>(
    events: &[&Event],
    column_id: Option<&str>,
    from_webhook: fn(&Value) -> T,
    from_api: fn(&Value) -> T,
) -> Vec<Write<T>> {
    let Some(column_id) = column_id else { return Vec::new() };
    sorted(events.iter().filter_map(|event| match event.kind {
        Kind::UpdateColumnValue if event.json["columnId"] == column_id => {
            write(event, from_webhook(&event.json["value"]))
        }
        Kind::CreatePulse => {
            write(event, from_webhook(event.json["columnValues"].as_object()?.get(column_id)?))
        }
        Kind::ItemSnapshot => {
            let entries = event.json["column_values"].as_array()?;
            let entry = entries.iter().find(|entry| entry["id"] == column_id)?;
            let at = match instant(&entry["updated_at"]) {
                Some(own) => event.not_from_the_future(Some(own)),
                None => event.occurred_at,
            };
            Some(Write { at, event_id: event.id.clone(), value: from_api(entry) })
        }
        _ => None,
    }))
}

/// Where the run begins that lasts to the end of the history. `class` says what counts as the same.
fn start_of_last_run<T, C: PartialEq>(
    history: &[Write<T>],
    class: impl Fn(&T) -> C,
) -> Option<Micros> {
    let end = class(&history.last()?.value);
    history.iter().rev().take_while(|write| class(&write.value) == end).last().map(|write| write.at)
}

/// The label's id decides; its text only where the id means nothing.
fn is_labelled(labels: &[Label], status: &Status, by_id: bool) -> bool {
    labels.iter().any(|label| match label {
        Label::Id(id) => by_id && status.id == Some(*id),
        Label::Text(text) => !by_id && status.text.as_ref() == Some(text),
    })
}

fn state_of(board: &Board, status: &Status) -> State {
    for by_id in [true, false] {
        if is_labelled(&board.won, status, by_id) {
            return State::Won;
        }
        if is_labelled(&board.lost, status, by_id) {
            return State::Lost;
        }
        if is_labelled(&board.contacted, status, by_id) {
            return State::Open;
        }
    }
    State::Open
}

fn is_touch_label(board: &Board, status: &Status) -> bool {
    [&board.contacted, &board.won, &board.lost]
        .into_iter()
        .any(|labels| is_labelled(labels, status, true) || is_labelled(labels, status, false))
}

/// When a human did something about the lead, other than creating it.
fn touches(board: &Board, events: &[&Event]) -> impl Iterator<Item = Micros> {
    events
        .iter()
        .filter(|event| event.is_by_a_human() && is_touch(board, event))
        .map(|e| e.occurred_at)
}

fn is_touch(board: &Board, event: &Event) -> bool {
    let writes = |column: &Option<String>| {
        event.kind == Kind::UpdateColumnValue
            && column.is_some()
            && event.json["columnId"].as_str() == column.as_deref()
    };
    let value = &event.json["value"];
    event.kind == Kind::CreateUpdate
        || (writes(&board.status) && is_touch_label(board, &webhook::status(value)))
        || (writes(&board.next_call) && webhook::next_call(value).is_some())
}

fn entered(events: &[&Event]) -> (Micros, EnteredSource) {
    let of_kind = |kind| events.iter().filter(move |event| event.kind == kind);
    let api = of_kind(Kind::ItemSnapshot).filter_map(|e| instant(&e.json["created_at"])).min();
    let created = of_kind(Kind::CreatePulse).map(|e| e.occurred_at).min();
    let first_seen = events.iter().map(|e| e.occurred_at).min().unwrap_or_default();
    match (api, created) {
        (Some(at), _) => (at, EnteredSource::Api),
        (None, Some(at)) => (at, EnteredSource::Created),
        (None, None) => (first_seen, EnteredSource::FirstSeen),
    }
}

fn closer(owners: &[Write<Option<i64>>], closed_won_at: Micros) -> Option<i64> {
    let (before, after): (Vec<_>, Vec<_>) =
        owners.iter().partition(|write| write.at <= closed_won_at);
    let in_force = before.last().and_then(|write| write.value);
    in_force.or_else(|| after.iter().find_map(|write| write.value))
}

fn name(event: &Event) -> Option<String> {
    let json = &event.json;
    let renamed = if event.kind == Kind::UpdateName { text(&json["value"]["name"]) } else { None };
    let imported = if event.kind == Kind::ItemSnapshot { text(&json["name"]) } else { None };
    renamed.or(imported).or_else(|| text(&json["pulseName"])).or_else(|| text(&json["itemName"]))
}

fn group(event: &Event) -> Option<String> {
    if event.kind == Kind::ItemSnapshot {
        return text(&event.json["group"]["id"]);
    }
    text(&event.json["destGroupId"]).or_else(|| text(&event.json["groupId"]))
}

fn lifecycle(event: &Event) -> Option<Lifecycle> {
    match event.kind {
        Kind::ArchivePulse => Some(Lifecycle::Archived),
        Kind::DeletePulse => Some(Lifecycle::Deleted),
        Kind::RestorePulse => Some(Lifecycle::Active),
        Kind::ItemSnapshot => match event.json["state"].as_str()? {
            "archived" => Some(Lifecycle::Archived),
            "deleted" => Some(Lifecycle::Deleted),
            "active" => Some(Lifecycle::Active),
            _ => None,
        },
        _ => None,
    }
}
