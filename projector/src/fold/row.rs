//! From what is remembered of a lead to its row, in the terms of the board's mapping.

use chrono::{DateTime, NaiveDate, Utc};
use leadpulse_nats::instant;
use leadpulse_service::config::{Board, Class};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::LeadState;
use crate::event::{Lifecycle, Status};

/// The class of a lead's current status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    Won,
    Lost,
}

impl State {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Won => "won",
            Self::Lost => "lost",
        }
    }

    fn of(status: Option<&Status>, board: &Board) -> Self {
        match status.and_then(|status| class(status, board)) {
            Some(Class::Won) => Self::Won,
            Some(Class::Lost) => Self::Lost,
            Some(Class::Contacted) | None => Self::Open,
        }
    }
}

fn class(status: &Status, board: &Board) -> Option<Class> {
    board.class(status.id, status.label.as_deref())
}

/// A row of LeadFact (spec.md §2), field by field.
#[derive(Debug, Clone, PartialEq)]
pub struct LeadRow {
    pub name: Option<String>,
    pub group_id: Option<String>,
    pub status_id: Option<i64>,
    pub status_label: Option<String>,
    pub assigned_user_id: Option<i64>,
    pub assigned_at: Option<DateTime<Utc>>,
    pub deal_amount: Option<Decimal>,
    pub industry: Option<String>,
    pub next_call_date: Option<NaiveDate>,
    pub entered_at: DateTime<Utc>,
    pub entered_source: &'static str,
    pub first_touch_at: Option<DateTime<Utc>>,
    pub last_activity_at: Option<DateTime<Utc>>,
    pub state: State,
    pub closed_won_at: Option<DateTime<Utc>>,
    pub closed_lost_at: Option<DateTime<Utc>>,
    pub closed_by_user_id: Option<i64>,
    pub lifecycle: Lifecycle,
    pub last_event_at: DateTime<Utc>,
    pub last_seq: u64,
    pub trace_id: Option<Uuid>,
}

impl LeadState {
    /// The lead's row under this mapping. A state without any event has none.
    pub fn row(&self, board: &Board) -> Option<LeadRow> {
        let (entered_at, entered_source) = self.entered()?;
        let status = self.statuses.last().and_then(Option::as_ref);
        let state = State::of(status, board);
        let run =
            |wanted| self.statuses.run_start(|status| State::of(status.as_ref(), board) == wanted);
        let closed_won_at = if state == State::Won { run(State::Won) } else { None };
        let closed_lost_at = if state == State::Lost { run(State::Lost) } else { None };
        let owner = self.owners.last().copied().flatten();
        let assigned_at = owner.and_then(|owner| self.owners.run_start(|by| *by == Some(owner)));
        Some(LeadRow {
            name: self.name.get().cloned(),
            group_id: self.group.get().cloned(),
            status_id: status.and_then(|status| status.id),
            status_label: status.and_then(|status| status.label.clone()),
            assigned_user_id: owner,
            assigned_at: assigned_at.and_then(instant::from_micros),
            deal_amount: self
                .amount
                .get()
                .and_then(Option::as_ref)
                .and_then(|text| text.parse().ok()),
            industry: self.industry.get().cloned().flatten(),
            next_call_date: self
                .next_call
                .get()
                .copied()
                .flatten()
                .and_then(NaiveDate::from_num_days_from_ce_opt),
            entered_at: instant::from_micros(entered_at)?,
            entered_source,
            first_touch_at: self.first_touch(board).and_then(instant::from_micros),
            last_activity_at: self.last_activity_at.and_then(instant::from_micros),
            state,
            closed_won_at: closed_won_at.and_then(instant::from_micros),
            closed_lost_at: closed_lost_at.and_then(instant::from_micros),
            closed_by_user_id: closed_won_at.and_then(|at| self.closer(at)),
            lifecycle: self.lifecycle.get().copied().unwrap_or(Lifecycle::Active),
            last_event_at: instant::from_micros(self.last_event_at?)?,
            last_seq: self.last_seq,
            trace_id: self.trace_id.map(Uuid::from_bytes),
        })
    }

    fn entered(&self) -> Option<(i64, &'static str)> {
        let sources = [
            (self.api_created_at, "api"),
            (self.created_at, "created"),
            (self.first_seen_at, "first_seen"),
        ];
        sources.into_iter().find_map(|(at, source)| Some((at?, source)))
    }

    /// The earliest act of a person that moved the lead on: a contact, or a status that counts as one.
    fn first_touch(&self, board: &Board) -> Option<i64> {
        let counts = |status: &Status| class(status, board).is_some();
        let by_status = self
            .statuses
            .iter()
            .find(|entry| entry.touches && entry.value.as_ref().is_some_and(counts))
            .map(|entry| entry.stamp.at);
        [self.first_contact_at, by_status].into_iter().flatten().min()
    }

    /// Who won it: the owner in force at that instant, else the first one after it.
    fn closer(&self, won_at: i64) -> Option<i64> {
        let in_force = self.owners.iter().rev().find(|entry| entry.stamp.at <= won_at);
        let later = || {
            self.owners.iter().filter(|entry| entry.stamp.at > won_at).find_map(|entry| entry.value)
        };
        in_force.and_then(|entry| entry.value).or_else(later)
    }
}
