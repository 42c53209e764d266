//! Which leads: the filters of a list, which combine freely.

use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use leadpulse_service::config::Org;
use rust_decimal::Decimal;
use sqlx::{Postgres, QueryBuilder};

use super::fact::Fact;
use crate::{
    cursor::Position,
    params::{self, Params},
    text, window,
};

/// The instant that a list is about. Leads without it are not in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DateField {
    Entered,
    FirstTouch,
    ClosedWon,
    LastActivity,
}

impl DateField {
    const WORDS: [(&'static str, Self); 4] = [
        ("entered", Self::Entered),
        ("first_touch", Self::FirstTouch),
        ("closed_won", Self::ClosedWon),
        ("last_activity", Self::LastActivity),
    ];

    pub(crate) fn column(self) -> &'static str {
        match self {
            Self::Entered => "entered_at",
            Self::FirstTouch => "first_touch_at",
            Self::ClosedWon => "closed_won_at",
            Self::LastActivity => "last_activity_at",
        }
    }

    pub(crate) fn position(self, fact: &Fact) -> Position {
        let at = match self {
            Self::Entered => Some(fact.entered_at),
            Self::FirstTouch => fact.first_touch_at,
            Self::ClosedWon => fact.closed_won_at,
            Self::LastActivity => fact.last_activity_at,
        };
        Position([at.map_or(0, |at| at.timestamp_micros()), fact.board_id, fact.item_id])
    }

    /// A signed cursor holds no instant that was not in a row.
    pub(crate) fn split(position: Position) -> (DateTime<Utc>, i64, i64) {
        let [micros, board_id, item_id] = position.0;
        (instant::from_micros(micros).unwrap_or_default(), board_id, item_id)
    }
}

#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) date_field: DateField,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    agents: Vec<i64>,
    boards: Vec<i64>,
    industries: Vec<String>,
    statuses: Vec<String>,
    states: Vec<&'static str>,
    lifecycles: &'static [&'static str],
    min_amount: Option<Decimal>,
    max_amount: Option<Decimal>,
    q: Option<String>,
}

impl Filter {
    pub(crate) fn parse(params: &mut Params, org: &Org) -> Self {
        let filter = Self {
            date_field: params.choice("date_field", &DateField::WORDS, DateField::Entered),
            from: window::instant(params, "from", org),
            to: window::instant(params, "to", org),
            agents: params.many("agent_id", params::id),
            boards: params.many("board_id", params::id),
            industries: params.many("industry", params::text),
            statuses: params.many("status", params::text),
            states: params.choices("state", &[("open", "open"), ("won", "won"), ("lost", "lost")]),
            lifecycles: params.choice(
                "lifecycle",
                &[
                    ("active", &["active"][..]),
                    ("archived", &["archived"]),
                    ("deleted", &["deleted"]),
                    ("all", &["active", "archived", "deleted"]),
                ],
                &["active", "archived"],
            ),
            min_amount: params.one("min_amount", params::money),
            max_amount: params.one("max_amount", params::money),
            q: params.one("q", params::name),
        };
        if let (Some(from), Some(to)) = (filter.from, filter.to)
            && from > to
        {
            params.fault("to", "must not be earlier than `from`");
        }
        if let (Some(least), Some(most)) = (filter.min_amount, filter.max_amount)
            && least > most
        {
            params.fault("max_amount", "must not be less than `min_amount`");
        }
        filter
    }

    /// The conditions, from `where` on. `from` is in the span, `to` is not: spans that meet share nothing.
    pub(crate) fn push(&self, query: &mut QueryBuilder<Postgres>, org_id: &str) {
        let column = self.date_field.column();
        query.push(" where lead_fact.org_id = ").push_bind(org_id.to_owned());
        match self.lifecycles {
            // Said so that it is clear of the index's point of view, too: nearly all leads.
            ["active", "archived"] => query.push(" and lifecycle <> 'deleted'"),
            [_, _, _] => query,
            some => query.push(" and lifecycle = any (").push_bind(some.to_vec()).push(")"),
        };
        match (self.from, self.to) {
            (None, None) if self.date_field != DateField::Entered => {
                query.push(format_args!(" and {column} is not null"));
            }
            _ => {}
        }
        if let Some(from) = self.from {
            query.push(format_args!(" and {column} >= ")).push_bind(from);
        }
        if let Some(to) = self.to {
            query.push(format_args!(" and {column} < ")).push_bind(to);
        }
        push_ids(query, "assigned_user_id", &self.agents);
        push_ids(query, "board_id", &self.boards);
        if !self.industries.is_empty() {
            let wanted: Vec<String> = self.industries.iter().map(|i| i.to_lowercase()).collect();
            // What `lower` does to letters beyond ASCII depends on the database's locale; the spellings that
            // people use are found whatever it is.
            let mut spellings = wanted.clone();
            for industry in &self.industries {
                spellings.extend([
                    industry.clone(),
                    industry.to_uppercase(),
                    capitalised(industry),
                ]);
            }
            query.push(" and (lower(coalesce(industry, 'unknown')) = any (").push_bind(wanted);
            query.push(") or industry = any (").push_bind(spellings).push("))");
        }
        self.push_status(query);
        if let Some(least) = self.min_amount {
            query.push(" and deal_amount >= ").push_bind(least);
        }
        if let Some(most) = self.max_amount {
            query.push(" and deal_amount <= ").push_bind(most);
        }
        if let Some(q) = &self.q {
            // Anywhere in the name; under three characters at its beginning, which an index can find.
            let anywhere = if text::search_form(q).chars().count() < 3 { "" } else { "%" };
            let pattern = format!("{anywhere}{}%", text::pattern(q));
            query.push(" and search_form(lead_fact.name) like ").push_bind(pattern);
        }
    }

    fn push_status(&self, query: &mut QueryBuilder<Postgres>) {
        if !self.statuses.is_empty() {
            // By label id where it is a number, by the exact text in any case.
            let ids: Vec<i64> = self.statuses.iter().filter_map(|s| s.parse().ok()).collect();
            query.push(" and (status_label = any (").push_bind(self.statuses.clone());
            query.push(") or status_id = any (").push_bind(ids).push("))");
        }
        if !self.states.is_empty() {
            query.push(" and state = any (").push_bind(self.states.clone()).push(")");
        }
    }
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_uppercase().to_string());
    first.unwrap_or_default() + &letters.as_str().to_lowercase()
}

/// One id by `=`: then an index that begins with it keeps its order, and nothing is sorted.
fn push_ids(query: &mut QueryBuilder<Postgres>, column: &str, ids: &[i64]) {
    match ids {
        [] => {}
        [id] => {
            query.push(format_args!(" and {column} = ")).push_bind(*id);
        }
        _ => {
            query.push(format_args!(" and {column} = any (")).push_bind(ids.to_vec()).push(")");
        }
    }
}
