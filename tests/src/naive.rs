//! A second implementation of the specification of the read models, to hold the system against.
//!
//! It was written from the specification's page and from nobody's code, and it shares none: it takes the
//! whole set of events, sorts it and scans it, once for every question. It is slow on purpose; whatever
//! it does can be compared with the page sentence by sentence. Instants are whole microseconds, money
//! is an exact decimal.

mod event;
mod instant;
mod kpis;
mod lead;
mod metrics;
pub mod tables;
mod user;
mod value;

pub use event::{Event, Kind};
pub use instant::{Micros, rfc3339};
pub use kpis::Kpis;
pub use lead::{EnteredSource, Lead, Lifecycle, State};
pub use metrics::{AgentMetrics, Industry, Median, Momentum, Window, agents};
pub use user::User;

use std::collections::{BTreeMap, BTreeSet};

use crate::rules::Rules;

/// One message as the stream took it in: its place, when it was received, and the raw `event` object.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub seq: u64,
    pub received_at: Micros,
    pub event: String,
}

/// The read models of one org after a set of arrivals.
#[derive(Debug)]
pub struct World {
    pub leads: BTreeMap<(i64, i64), Lead>,
    pub users: BTreeMap<i64, User>,
}

impl World {
    /// Reads everything at once. The stream keeps the first arrival of an event, so later ones are nothing.
    pub fn of(arrivals: &[Arrival], rules: &Rules) -> Self {
        let events = first_arrivals(arrivals);
        let mut leads = BTreeMap::new();
        let items: BTreeSet<(i64, i64)> = events.iter().filter_map(Event::lead).collect();
        for (board_id, item_id) in items {
            let Some(board) = rules.board(board_id) else { continue };
            let own: Vec<&Event> =
                events.iter().filter(|event| event.lead() == Some((board_id, item_id))).collect();
            leads.insert((board_id, item_id), Lead::of(board, item_id, &own));
        }
        Self { leads, users: user::users(&events) }
    }

    /// The name of an agent in every answer: an unknown user shows as its id.
    pub fn name_of(&self, user_id: i64) -> String {
        self.users
            .get(&user_id)
            .and_then(|user| user.name.clone())
            .unwrap_or_else(|| user_id.to_string())
    }

    pub fn all_leads(&self) -> Vec<&Lead> {
        self.leads.values().collect()
    }
}

fn first_arrivals(arrivals: &[Arrival]) -> Vec<Event> {
    let mut in_order: Vec<&Arrival> = arrivals.iter().collect();
    in_order.sort_by_key(|arrival| arrival.seq);
    let mut known = BTreeSet::new();
    let mut events = Vec::new();
    for arrival in in_order {
        let event = Event::read(arrival);
        if known.insert(event.id.clone()) {
            events.push(event);
        }
    }
    events
}

#[cfg(test)]
mod tests;
