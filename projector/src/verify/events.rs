//! The events behind the leads that differ: the stream read once more, for them alone.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use super::{Event, Ground, Verdict};
use crate::{
    event::LeadKey,
    reader::range::{Bounds, RangeReader, Select},
};

/// Leads whose events are named, and events of one lead.
const LEADS: usize = 100;
const EVENTS: usize = 50;

/// What is behind one lead.
#[derive(Default)]
struct Behind {
    events: Vec<Event>,
    /// Events beyond those that are named.
    more: u64,
}

pub(super) async fn attach(ground: &Ground<'_>, verdict: &mut Verdict) -> Result<()> {
    let mut behind = HashMap::<LeadKey, Behind>::new();
    let mut others = HashSet::new();
    for key in verdict.differences.iter().filter_map(|difference| difference.lead.as_ref()) {
        if behind.len() < LEADS || behind.contains_key(key) {
            behind.entry(key.clone()).or_default();
        } else {
            others.insert(key);
        }
    }
    verdict.leads_without_events = others.len() as u64;
    if behind.is_empty() {
        return Ok(());
    }
    let bounds = Bounds { from: ground.seen.first.max(1), to: verdict.seq };
    let select =
        Select { org: ground.scope.org.clone(), board: ground.scope.board, ..Select::default() };
    let identity = &ground.seen.identity;
    let mut reader = RangeReader::open(&ground.stream, identity, bounds, select).await?;
    while let Some(chunk) = reader.next().await? {
        for delivery in &chunk {
            let Ok(envelope) = &delivery.envelope else { continue };
            let (Some(board_id), Some(item_id)) = (envelope.board_id, envelope.item_id) else {
                continue;
            };
            let key = LeadKey { org_id: envelope.org.clone(), board_id, item_id };
            let Some(lead) = behind.get_mut(&key) else { continue };
            if lead.events.len() == EVENTS {
                lead.more += 1;
            } else {
                lead.events.push(Event {
                    seq: delivery.seq,
                    kind: envelope.kind.to_string(),
                    event_id: envelope.event_id.clone(),
                    occurred_at: envelope.occurred_at,
                });
            }
        }
    }
    for difference in &mut verdict.differences {
        if let Some(lead) = difference.lead.as_ref().and_then(|key| behind.get(key)) {
            difference.events.clone_from(&lead.events);
            difference.more_events = lead.more;
        }
    }
    Ok(())
}
