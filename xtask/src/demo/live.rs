//! The present: some events a second on the leads that are open, and new leads.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Feed, History,
    board::BOARDS,
    history::owner_for,
    lead::Lead,
    people::{Agent, lead_name},
};
use crate::say;

/// Somebody who looks at the logs sees that there is life.
const TELL_EVERY: Duration = Duration::from_secs(30);

/// Goes on until it is dropped. `until` is where the history ended (unix seconds).
pub async fn live(feed: &Feed, until: i64) -> Result<()> {
    let until = DateTime::from_timestamp(until, 0).context("the history's end is no time")?;
    let History { mut open, team, .. } = History::until(until);
    // Not the history's seed: a second run would write the same events again.
    let mut rng = StdRng::from_rng(&mut rand::rng());
    let (mut told, mut sent) = (Instant::now(), 0);
    loop {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..700))).await;
        for event in next(&mut rng, &mut open, &team) {
            feed.send(&event.body).await?;
            sent += 1;
        }
        if told.elapsed() > TELL_EVERY {
            let (seconds, leads) = (told.elapsed().as_secs(), open.len());
            say::line(&format!(
                "demo      | {sent} webhooks in {seconds} s, {leads} leads are open"
            ));
            (told, sent) = (Instant::now(), 0);
        }
    }
}

fn next(rng: &mut StdRng, open: &mut Vec<Lead>, team: &[Agent]) -> Vec<super::Event> {
    let now = Utc::now();
    // Those who are away stay away.
    let owner = owner_for(rng, team, now, now);
    if open.is_empty() || rng.random_bool(0.12) {
        let board = &BOARDS[usize::from(rng.random_bool(0.3))];
        let name = lead_name(rng);
        // Unlike any id of the history, and unlike those of an earlier run.
        let mut lead = Lead::new(rng, board, now.timestamp_millis(), name);
        let events = lead.create(rng, now, team, owner);
        open.push(lead);
        return events;
    }
    let index = rng.random_range(0..open.len());
    if open[index].owner.is_some_and(|owner| team[owner].away_days > 0) {
        return Vec::new();
    }
    let events = open[index].step(rng, now, team, owner);
    if open[index].done {
        open.swap_remove(index);
    }
    events
}
