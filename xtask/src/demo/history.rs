//! 90 days of a team, from a seed.

use chrono::{DateTime, Datelike, TimeDelta, Timelike, Utc, Weekday};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    board::{BOARDS, Stage},
    lead::Lead,
    payload::{Pen, retry, user_snapshot},
    people::{Agent, lead_name, team},
};

const SEED: u64 = 20_260_302;
const DAYS: i64 = 90;
const LEADS: i64 = 3000;
/// Items of the history have these ids and the following ones.
const FIRST_ITEM: i64 = 4_200_000_001;

/// One webhook, and when what it tells has happened.
#[derive(Debug, Clone)]
pub struct Event {
    pub at: DateTime<Utc>,
    pub body: Value,
}

/// What is sent, in order, and how the leads stand at its end.
#[derive(Debug)]
pub struct History {
    pub webhooks: Vec<Value>,
    pub(super) open: Vec<Lead>,
    pub(super) team: Vec<Agent>,
}

impl History {
    /// The 90 days before `until`.
    pub fn until(until: DateTime<Utc>) -> Self {
        let mut rng = StdRng::seed_from_u64(SEED);
        let team = team();
        let mut events = Vec::new();
        let mut open = Vec::new();
        for index in 0..LEADS {
            let lead = live_through(&mut rng, index, until, &team, &mut events);
            if !lead.done {
                open.push(lead);
            }
        }
        events.extend(off_board(&mut rng, until));
        events.retain(|event| event.at <= until);
        events.sort_by_key(|event| event.at);
        let people = team.iter().map(|agent| user_snapshot(agent.id, agent.name));
        let webhooks = people.chain(with_retries(&mut rng, events)).collect();
        Self { webhooks, open, team }
    }
}

fn live_through(
    rng: &mut StdRng,
    index: i64,
    until: DateTime<Utc>,
    team: &[Agent],
    events: &mut Vec<Event>,
) -> Lead {
    let board = &BOARDS[usize::from(rng.random_bool(0.3))];
    let name = lead_name(rng);
    let mut lead = Lead::new(rng, board, FIRST_ITEM + index, name);
    // Business grows: more leads in the later weeks.
    let back = DAYS as f64 * rng.random::<f64>().powf(1.2);
    #[allow(clippy::cast_possible_truncation, reason = "90 days in milliseconds")]
    let back = TimeDelta::milliseconds((back * 86_400_000.0) as i64);
    let mut at = until - back;
    if rng.random_bool(0.8) {
        at = at_work(rng, at).min(until); // who asks for an offer mostly does so in the daytime
    }
    let first = owner_for(rng, team, at, until);
    events.extend(lead.create(rng, at, team, first));
    while !lead.done {
        at = next_time(rng, &lead, at, team);
        let away = lead.owner.map_or(0, |owner| team[owner].away_days);
        if at > until || (away > 0 && at > until - TimeDelta::days(away)) {
            break;
        }
        let successor = owner_for(rng, team, at, until);
        events.extend(lead.step(rng, at, team, successor));
    }
    lead
}

/// Someone who is at work at this time, by their share of the leads.
pub(super) fn owner_for(
    rng: &mut StdRng,
    team: &[Agent],
    at: DateTime<Utc>,
    until: DateTime<Utc>,
) -> usize {
    let at_work = |agent: &Agent| at <= until - TimeDelta::days(agent.away_days);
    let total: u32 = team.iter().filter(|agent| at_work(agent)).map(|agent| agent.share).sum();
    let mut left = rng.random_range(0..total.max(1));
    for (index, agent) in team.iter().enumerate().filter(|(_, agent)| at_work(agent)) {
        if left < agent.share {
            return index;
        }
        left -= agent.share;
    }
    0
}

/// When the next thing happens to this lead.
fn next_time(rng: &mut StdRng, lead: &Lead, at: DateTime<Utc>, team: &[Agent]) -> DateTime<Utc> {
    let Some(agent) = lead.owner.map(|owner| &team[owner]) else {
        return at + minutes(rng, 3.0);
    };
    let later = match lead.stage {
        Stage::New => minutes(rng, agent.response_minutes),
        Stage::Won | Stage::Lost => minutes(rng, 4.0 * 24.0 * 60.0),
        _ => minutes(rng, agent.pace_hours * 60.0),
    };
    at_work(rng, at + later)
}

/// Around this median, some much later (log-normal, sigma 1).
fn minutes(rng: &mut StdRng, median: f64) -> TimeDelta {
    let [u, v]: [f64; 2] = [rng.random_range(1e-9..1.0), rng.random()];
    let normal = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    #[allow(clippy::cast_possible_truncation, reason = "bounded by a hundred days")]
    let micros = (median * normal.exp() * 60e6).clamp(5e6, 8.64e12) as i64;
    TimeDelta::microseconds(micros)
}

/// Sunday to Thursday, from eight to seven in Jerusalem; who writes at night writes the next morning.
fn at_work(rng: &mut StdRng, at: DateTime<Utc>) -> DateTime<Utc> {
    let mut local = at + TimeDelta::hours(2);
    let morning = |day: DateTime<Utc>, rng: &mut StdRng| {
        let midnight = day - TimeDelta::seconds(i64::from(day.num_seconds_from_midnight()));
        midnight + TimeDelta::hours(8) + TimeDelta::milliseconds(rng.random_range(0..7_200_000))
    };
    if local.hour() < 8 {
        local = morning(local, rng);
    } else if local.hour() >= 19 {
        local = morning(local + TimeDelta::days(1), rng);
    }
    while matches!(local.weekday(), Weekday::Fri | Weekday::Sat) {
        local = morning(local + TimeDelta::days(1), rng);
    }
    local - TimeDelta::hours(2)
}

/// What else comes through the door: an unmapped board, and a new column.
fn off_board(rng: &mut StdRng, until: DateTime<Utc>) -> Vec<Event> {
    let mut events = Vec::new();
    for day in 0..DAYS {
        let at = until - TimeDelta::days(day) - TimeDelta::minutes(rng.random_range(1..1400));
        let item = FIRST_ITEM + 900_000 + day;
        let board = &BOARDS[0];
        let mut pen = Pen { rng, board, item, name: "Order paper".into(), events: Vec::new() };
        let unmapped = json!({ "boardId": 9500, "pulseName": "Order paper", "groupId": "topics", "columnValues": {} });
        pen.plain("create_pulse", at, 7001, unmapped);
        if day % 30 == 9 {
            let column =
                json!({ "columnId": "text_9", "columnType": "text", "columnTitle": "Notes" });
            pen.plain("create_column", at, 7001, column);
        }
        events.extend(pen.events);
    }
    events
}

/// One delivery in a hundred comes twice, some time after the first.
fn with_retries(rng: &mut StdRng, events: Vec<Event>) -> Vec<Value> {
    const LATER: usize = 400;
    let mut webhooks = Vec::with_capacity(events.len() + events.len() / 64);
    for (index, event) in events.iter().enumerate() {
        webhooks.push(event.body.clone());
        if let Some(earlier) = index.checked_sub(LATER)
            && rng.random_bool(0.01)
        {
            webhooks.push(retry(&events[earlier]));
        }
    }
    webhooks
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    fn until() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).unwrap()
    }

    #[test]
    fn the_same_end_gives_the_same_history() {
        let [one, two] = [(); 2].map(|()| History::until(until()));
        assert_eq!(one.webhooks, two.webhooks);
    }

    #[test]
    fn the_history_is_lively_and_of_every_kind() {
        let history = History::until(until());
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        let mut items = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for webhook in &history.webhooks {
            let event = &webhook["event"];
            *kinds.entry(event["type"].as_str().unwrap().to_owned()).or_default() += 1;
            if event["type"] == "create_pulse" && event.get("parentItemId").is_none() {
                items.insert(event["pulseId"].as_i64().unwrap());
            }
            if let Some(at) = event["triggerTime"].as_str() {
                assert!(event["isRetry"] == true || at < "2026-09-21T17:33:23", "{event}");
                let known = !seen.insert(event["triggerUuid"].as_str().unwrap().to_owned());
                assert_eq!(
                    event["isRetry"] == true,
                    known,
                    "an event and its retry, in this order"
                );
            }
        }
        assert!((20_000..45_000).contains(&history.webhooks.len()), "{}", history.webhooks.len());
        assert!(items.len() > 2900 && history.open.len() > 200, "{kinds:?}");
        for kind in [
            "create_pulse",
            "update_column_value",
            "update_name",
            "archive_pulse",
            "delete_pulse",
            "restore_pulse",
            "move_pulse_into_group",
            "create_update",
            "edit_update",
            "delete_update",
            "create_column",
            "user_snapshot",
            "item_reaction_added",
        ] {
            assert!(kinds.contains_key(kind), "{kind} is missing: {kinds:?}");
        }
    }

    #[test]
    fn nobody_works_at_night_or_on_shabbat() {
        let mut rng = StdRng::seed_from_u64(1);
        for hour in 0..168 {
            let at = at_work(&mut rng, until() + TimeDelta::hours(hour)) + TimeDelta::hours(2);
            assert!((8..19).contains(&at.hour()), "{at}");
            assert!(!matches!(at.weekday(), Weekday::Fri | Weekday::Sat), "{at}");
        }
    }
}
