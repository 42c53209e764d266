//! The selected events, folded onto what is stored of their leads.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Result, ensure};
use leadpulse_nats::Envelope;
use sqlx::PgPool;

use super::{Ground, Wanted, Watch};
use crate::{
    event::{self, LeadEvent, LeadKey, Meaning, UserEvent},
    fold::{LeadRow, LeadState},
    lane::{Delivery, bucket},
    ops::Usage,
    reader::range::{Bounds, RangeReader, Select},
    store::{self, LeftOut, Position, StoredLead},
};

/// Leads that one replay takes; more are the business of a rebuild.
const MOST_LEADS: usize = 200_000;

/// A lead that the selected events are about.
#[derive(Debug, Default)]
pub(super) struct Touched {
    pub(super) stored: Option<StoredLead>,
    pub(super) state: LeadState,
    pub(super) row: Option<LeadRow>,
    pub(super) events: u64,
    /// Made from all its events: nothing usable was stored, or it was asked for.
    pub(super) whole: bool,
}

/// What the tables would have to be.
#[derive(Debug)]
pub(super) struct Folded {
    pub(super) bounds: Bounds,
    pub(super) events: u64,
    pub(super) leads: BTreeMap<LeadKey, Touched>,
    /// The last selected snapshot of each user, where what is stored is not later.
    pub(super) users: Vec<(Option<store::StoredUser>, UserEvent)>,
}

/// What counts for the projection as it is now.
struct Counting {
    position: Position,
    left_out: LeftOut,
    only: Option<HashSet<LeadKey>>,
}

impl Counting {
    /// The lead's lane has applied it, and it is neither parked nor skipped.
    fn takes(&self, event: &LeadEvent, envelope: &Result<Envelope, String>) -> bool {
        let key = &event.key;
        let bucket = bucket(&key.org_id, key.board_id, key.item_id);
        event.seq <= self.position.of_bucket(bucket)
            && !self.left_out.contains(event.seq, envelope)
            && self.only.as_ref().is_none_or(|only| only.contains(key))
    }
}

impl Ground<'_> {
    pub(super) async fn fold(
        &self,
        bounds: Bounds,
        wanted: &Wanted,
        only: Option<&BTreeSet<LeadKey>>,
        watch: Watch<'_>,
    ) -> Result<Folded> {
        let pool = &self.tools.pool;
        let position = self.position().await?;
        // What the lanes have not applied yet is theirs.
        let bounds = Bounds { to: bounds.to.min(position.farthest()), ..bounds };
        let left_out = LeftOut::load(&mut *pool.acquire().await?).await?;
        let only = only.map(|keys| keys.iter().cloned().collect());
        let counting = Counting { position, left_out, only };
        let mut folded = Folded { bounds, events: 0, leads: BTreeMap::new(), users: Vec::new() };
        let mut users = HashMap::new();
        let identity = &self.seen.identity;
        let mut reader =
            RangeReader::open(&self.stream, identity, bounds, wanted.select.clone()).await?;
        while let Some(chunk) = reader.next().await? {
            let events = self.decode(chunk, &counting, &mut users);
            folded.absorb(pool, events, wanted.whole).await?;
            watch(reader.read().saturating_sub(bounds.from) + 1, bounds.len());
        }
        self.fold_whole(&mut folded, &counting, &wanted.select).await?;
        for (key, lead) in &mut folded.leads {
            let board = self.tools.mapping.board(&key.org_id, key.board_id);
            lead.row = board.and_then(|board| lead.state.row(board));
        }
        folded.users = store::not_later(&mut *pool.acquire().await?, users.into_values()).await?;
        Ok(folded)
    }

    fn decode(
        &self,
        chunk: Vec<Delivery>,
        counting: &Counting,
        users: &mut HashMap<(String, i64), UserEvent>,
    ) -> Vec<LeadEvent> {
        let mut events = Vec::new();
        for delivery in chunk {
            let Ok(envelope) = &delivery.envelope else { continue };
            let mapping = &self.tools.mapping;
            match event::decode(envelope, delivery.seq, delivery.trace_id, mapping) {
                Meaning::Lead(event) if counting.takes(&event, &delivery.envelope) => {
                    events.push(event);
                }
                Meaning::User(user) if user.seq <= counting.position.applied() => {
                    let key = (user.org_id.clone(), user.user_id);
                    let later = users.get(&key).is_none_or(|known: &UserEvent| {
                        (known.occurred_at, &known.event_id) < (user.occurred_at, &user.event_id)
                    });
                    if later {
                        users.insert(key, user);
                    }
                }
                Meaning::Lead(_) | Meaning::User(_) | Meaning::Nothing(_) => {}
            }
        }
        events
    }

    /// Leads without a usable row are made from all their events: a part would make a wrong row.
    async fn fold_whole(
        &self,
        folded: &mut Folded,
        counting: &Counting,
        asked: &Select,
    ) -> Result<()> {
        if !folded.leads.values().any(|lead| lead.whole) {
            return Ok(());
        }
        ensure!(
            self.seen.first <= 1,
            "the stream begins at {}: what came before is gone, and a lead made from the rest would be wrong",
            self.seen.first
        );
        // What is stored was loaded before: whatever a lane applied until then is within these positions,
        // and what it applies later changes the row, which the write finds out.
        let counting = Counting {
            position: self.position().await?,
            left_out: LeftOut::load(&mut *self.tools.pool.acquire().await?).await?,
            only: counting.only.clone(),
        };
        let select = Select { kind: None, ..asked.clone() };
        let bounds = Bounds { from: 1, to: counting.position.farthest() };
        let mut reader =
            RangeReader::open(&self.stream, &self.seen.identity, bounds, select).await?;
        while let Some(chunk) = reader.next().await? {
            for event in self.decode(chunk, &counting, &mut HashMap::new()) {
                let lead = folded.leads.get_mut(&event.key).filter(|lead| lead.whole);
                if let Some(lead) = lead {
                    lead.state.apply(&event);
                    lead.events += 1;
                }
            }
        }
        Ok(())
    }
}

impl Folded {
    async fn absorb(&mut self, pool: &PgPool, events: Vec<LeadEvent>, whole: bool) -> Result<()> {
        let new: BTreeSet<&LeadKey> = events
            .iter()
            .map(|event| &event.key)
            .filter(|key| !self.leads.contains_key(*key))
            .collect();
        if !new.is_empty() {
            let keys: Vec<LeadKey> = new.into_iter().cloned().collect();
            let mut stored = store::load_rows(&mut *pool.acquire().await?, &keys).await?;
            for key in keys {
                let stored = stored.remove(&key);
                let state = stored.as_ref().and_then(|(_, state)| LeadState::decode(state).ok());
                let whole = whole || state.is_none();
                let state = if whole { None } else { state };
                let state = state.unwrap_or_default();
                self.leads.insert(key, Touched { stored, state, whole, ..Touched::default() });
            }
        }
        if self.leads.len() > MOST_LEADS {
            anyhow::bail!(Usage(format!(
                "these events are about more than {MOST_LEADS} leads: narrow them, or `projector rebuild`"
            )));
        }
        for event in events {
            self.events += 1;
            let lead = self.leads.entry(event.key.clone()).or_default();
            if !lead.whole {
                lead.state.apply(&event);
                lead.events += 1;
            }
        }
        Ok(())
    }
}
