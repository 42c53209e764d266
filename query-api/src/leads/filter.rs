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

    /// What stands before the column in its index: its week, which seldom changes.
    pub(crate) fn week(self) -> Option<&'static str> {
        (self == Self::LastActivity).then_some("last_activity_week")
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

    /// The same bound for the week, by which the index is searched.
    pub(crate) fn push_week(
        self,
        query: &mut QueryBuilder<Postgres>,
        beyond: &str,
        at: DateTime<Utc>,
    ) {
        if let Some(week) = self.week() {
            query.push(format_args!(" and {week} {beyond} week_of(")).push_bind(at).push(")");
        }
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
                let indexed = self.date_field.week().unwrap_or(column);
                query.push(format_args!(" and {indexed} is not null"));
            }
            _ => {}
        }
        if let Some(from) = self.from {
            query.push(format_args!(" and {column} >= ")).push_bind(from);
            self.date_field.push_week(query, ">=", from);
        }
        if let Some(to) = self.to {
            query.push(format_args!(" and {column} < ")).push_bind(to);
            self.date_field.push_week(query, "<=", to);
        }
        push_ids(query, "assigned_user_id", &self.agents);
        push_ids(query, "board_id", &self.boards);
        if !self.industries.is_empty() {
            let wanted: Vec<String> = self.industries.iter().map(|i| i.to_lowercase()).collect();
            let (upper, lower) = letters(&wanted);
            query.push(" and lower(translate(coalesce(industry, 'unknown'), ").push_bind(upper);
            query.push(", ").push_bind(lower).push(")) = any (").push_bind(wanted).push(")");
        }
        self.push_status(query);
        if let Some(least) = self.min_amount {
            query.push(" and deal_amount >= ").push_bind(least);
        }
        if let Some(most) = self.max_amount {
            query.push(" and deal_amount <= ").push_bind(most);
        }
        if let Some(q) = &self.q {
            query.push(" and search_form(lead_fact.name) like ").push_bind(text::part(q));
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

/// The letters beyond ASCII of these texts, as capitals and as they are: what `lower` does to such letters
/// depends on the database's locale.
fn letters(texts: &[String]) -> (String, String) {
    let beyond = texts.iter().flat_map(|text| text.chars()).filter(|letter| !letter.is_ascii());
    let pairs = beyond.filter_map(|letter| {
        let mut capital = letter.to_uppercase();
        match (capital.next(), capital.next()) {
            (Some(capital), None) => Some((capital, letter)),
            // Of two letters, as that of ß: it is no capital of the one.
            _ => None,
        }
    });
    pairs.unzip()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_beyond_ascii_have_their_capitals_beside_them() {
        let found = letters(&["énergie".to_owned(), "straße ж".to_owned(), "plain".to_owned()]);
        assert_eq!(found, ("ÉЖ".to_owned(), "éж".to_owned()));
    }
}
