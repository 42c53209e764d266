//! Leads made right again from their events, beside a projection that goes on: `replay` and
//! `rebuild-lead`. What would change is computed first and is all that a dry run does.
//!
//! Events are folded without any lock. The write takes the lanes' positions, looks whether the rows are
//! still those that were folded onto, and leaves what has moved on to another round. The lanes begin
//! again afterwards: what they remember of leads would undo the repair with the next event.

mod change;
mod fold;
mod predict;
mod write;

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use async_nats::jetstream::stream::Stream;
use chrono::{DateTime, Utc};
use serde::Serialize;

use super::Tools;
use crate::{
    event::LeadKey,
    reader::{
        Seen,
        range::{Bounds, Edge, Select},
    },
    store,
};
pub use change::{AgentChange, FieldChange, LeadChange, UserChange};
use fold::Folded;

/// Rounds for leads that the live projection writes in the meantime.
const ROUNDS: usize = 5;

/// Which events are applied again.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub from: Option<Edge>,
    pub to: Option<Edge>,
    pub select: Select,
    /// The leads are made from nothing and all their events, not onto what is stored of them.
    pub whole: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Repaired {
    pub dry_run: bool,
    pub from_seq: u64,
    pub to_seq: u64,
    pub events: u64,
    pub leads: usize,
    pub lead_changes: Vec<LeadChange>,
    pub user_changes: Vec<UserChange>,
    /// Figures of AgentMetrics that change with the leads, as of `at`; the projector computes them.
    pub agent_changes: Vec<AgentChange>,
    pub at: DateTime<Utc>,
}

/// How far it is: events read, of how many.
pub type Watch<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// Work on one stream, whose positions are the projection's.
pub(crate) struct Ground<'a> {
    tools: &'a Tools,
    stream: Stream,
    seen: Seen,
}

/// Applies a part of the stream again, or tells what that would change.
pub async fn replay(
    tools: &Tools,
    wanted: &Wanted,
    dry_run: bool,
    watch: Watch<'_>,
) -> Result<Repaired> {
    tools.check_mapping().await?;
    let (stream, seen) = tools.stream().await?;
    let ground = Ground { tools, stream, seen };
    let bounds = Bounds::resolve(&ground.stream, &ground.seen, wanted.from, wanted.to).await?;
    let mut folded = ground.fold(bounds, wanted, None, watch).await?;
    let at = Utc::now();
    let mut report = Repaired {
        dry_run,
        from_seq: folded.bounds.from,
        to_seq: folded.bounds.to,
        events: folded.events,
        leads: folded.leads.len(),
        lead_changes: folded.lead_changes(),
        user_changes: folded.user_changes(),
        agent_changes: ground.predict(&folded, at).await?,
        at,
    };
    if dry_run {
        return Ok(report);
    }
    for _ in 0..ROUNDS {
        let moved_on = ground.write(&folded).await?;
        if moved_on.is_empty() {
            return Ok(report);
        }
        folded = ground.fold(bounds, wanted, Some(&moved_on), watch).await?;
        report.adopt(&folded, &moved_on);
    }
    bail!("some leads are written faster than they can be repaired: `projector pause`, and again")
}

impl Repaired {
    /// Leads that were folded once more have other changes now.
    fn adopt(&mut self, folded: &Folded, keys: &BTreeSet<LeadKey>) {
        self.lead_changes.retain(|change| !keys.iter().any(|key| change.is_of(key)));
        self.lead_changes.extend(folded.lead_changes());
    }
}

/// One lead from all its events.
pub async fn rebuild_lead(tools: &Tools, key: &LeadKey, dry_run: bool) -> Result<Repaired> {
    ensure!(
        tools.mapping.board(&key.org_id, key.board_id).is_some(),
        "the board {} of {} is not mapped: its items are no leads",
        key.board_id,
        key.org_id
    );
    let select = Select {
        org: Some(key.org_id.clone()),
        board: Some(key.board_id),
        item: Some(key.item_id),
        kind: None,
    };
    let wanted = Wanted { select, whole: true, ..Wanted::default() };
    let report = Box::pin(replay(tools, &wanted, dry_run, &|_, _| {})).await?;
    ensure!(
        report.leads > 0,
        "the stream has no event of the item {} on the board {} that counts: there is nothing to make it from",
        key.item_id,
        key.board_id
    );
    Ok(report)
}

/// The only org that has mapped this board, for those who do not name it.
pub fn org_of_board(tools: &Tools, board_id: i64) -> Result<String> {
    let orgs = tools.config.orgs.iter();
    let mut with: Vec<&str> = orgs
        .filter(|org| org.boards.iter().any(|board| board.id == board_id))
        .map(|org| org.id.as_str())
        .collect();
    match (with.pop(), with.is_empty()) {
        (Some(org), true) => Ok(org.to_owned()),
        (None, _) => bail!("no org has mapped the board {board_id}"),
        (Some(_), false) => {
            bail!(super::Usage(format!(
                "several orgs have mapped the board {board_id}: --org says which"
            )))
        }
    }
}

impl Ground<'_> {
    async fn position(&self) -> Result<store::Position> {
        let mut connection = self.tools.pool.acquire().await?;
        let position = store::positions(&mut connection, &self.seen.identity).await?;
        ensure!(!position.lanes.is_empty(), "nothing was projected yet: start `projector`");
        Ok(position)
    }
}
