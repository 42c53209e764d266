//! The leads of the agents that were computed last, so that a change of one lead does not read them all.
//!
//! What makes it exact: wherever a held agent's leads differ from the rows of LeadFact, a mark about that lead
//! and that agent, or about the whole agent, stands in `agent_dirty`. It holds because
//! * an agent's leads are read whole in the snapshot of the step that computes it, and are kept only once
//!   that step is committed;
//! * whoever changes a row marks its old and its new agents in the same transaction, so a later snapshot sees
//!   both or neither;
//! * the step that takes a mark reads what the mark is about in the same snapshot, and what it read and the
//!   end of the mark are committed together.
//!
//! Whatever breaks into this (a failed step, another table under the name of LeadFact, a new owner of the
//! fence) leaves nothing in memory. Rows that somebody changes by hand have no marks: `projector replay`
//! marks the agents it finds as a whole.

use std::{collections::BTreeSet, mem};

use lru::LruCache;
use sqlx::PgConnection;

use super::{
    lead::{Industries, Lead, LeadId},
    load::{self, Row},
    marks::Changed,
};

/// What an agent takes beside its leads.
const AGENT: usize = 200;

/// Agents' leads within a bound of bytes, the agents used least recently go first.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    bytes: usize,
    agents: LruCache<(String, i64), Vec<Lead>>,
    industries: Industries,
    /// The identity of the table that the leads are of.
    table: Option<i64>,
}

impl Memory {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            bytes: 0,
            agents: LruCache::unbounded(),
            industries: Industries::default(),
            table: None,
        }
    }

    /// Takes everything out and leaves nothing: what fails on the way back is forgotten.
    pub(super) fn take(&mut self) -> Self {
        let empty = Self::new(self.most);
        mem::replace(self, empty)
    }

    /// A rebuild and its rollback put another table under the name: nothing of the former counts.
    pub(super) fn of_table(self, table: i64) -> Self {
        let same = self.table == Some(table);
        let kept = if same { self } else { Self::new(self.most) };
        Self { table: Some(table), ..kept }
    }

    /// Brings what is held of these agents up to the snapshot, and reads the others whole.
    pub(super) async fn refresh(
        &mut self,
        connection: &mut PgConnection,
        org_id: &str,
        agents: &[(i64, Changed)],
    ) -> Result<(), sqlx::Error> {
        let (mut whole, mut keys) = (Vec::new(), BTreeSet::new());
        for (agent, changed) in agents {
            if changed.whole || !self.agents.contains(&(org_id.to_owned(), *agent)) {
                whole.push(*agent);
            } else {
                keys.extend(&changed.leads);
            }
        }
        let rows = load::leads_by_key(connection, org_id, &keys).await?;
        for (agent, changed) in agents {
            for id in &changed.leads {
                self.change(org_id, *agent, *id, rows.get(id));
            }
        }
        if !whole.is_empty() {
            let mut found =
                load::leads_of(connection, org_id, &whole, &mut self.industries).await?;
            for agent in &whole {
                self.put(org_id, *agent, found.remove(agent).unwrap_or_default());
            }
        }
        count("projector_agents_read_whole_total", whole.len());
        count("projector_agents_remembered_total", agents.len() - whole.len());
        Ok(())
    }

    /// The agent's leads, which `refresh` has just brought up to date.
    pub(super) fn leads(&mut self, org_id: &str, agent: i64) -> (&[Lead], &Industries) {
        let leads = self.agents.get(&(org_id.to_owned(), agent));
        (leads.map_or(&[], Vec::as_slice), &self.industries)
    }

    /// One lead of an agent that is held, as its row is now.
    fn change(&mut self, org_id: &str, agent: i64, id: LeadId, row: Option<&Row>) {
        let Some(leads) = self.agents.get_mut(&(org_id.to_owned(), agent)) else { return };
        let lead = row.and_then(|row| row.of(agent, &mut self.industries));
        let before = size(leads);
        match (leads.binary_search_by_key(&id, |lead| lead.id), lead) {
            (Ok(place), Some(lead)) => leads[place] = lead,
            (Ok(place), None) => _ = leads.remove(place),
            (Err(place), Some(lead)) => {
                // A list that doubles would hold as much air as leads.
                if leads.len() == leads.capacity() {
                    leads.reserve_exact(leads.len() / 16 + 4);
                }
                leads.insert(place, lead);
            }
            (Err(_), None) => {}
        }
        self.bytes = self.bytes + size(leads) - before;
    }

    /// An agent without leads is none, and is not held.
    fn put(&mut self, org_id: &str, agent: i64, leads: Vec<Lead>) {
        let key = (org_id.to_owned(), agent);
        if let Some(before) = self.agents.pop(&key) {
            self.bytes -= size(&before);
        }
        if !leads.is_empty() {
            self.bytes += size(&leads);
            self.agents.put(key, leads);
        }
    }

    /// Lets go what is beyond the bound. Industries have no owner: where they take too much, all goes.
    pub(super) fn shrink(&mut self) {
        if self.industries.bytes() > self.most / 4 {
            let table = self.table;
            *self = Self { table, ..Self::new(self.most) };
        }
        while self.bytes + self.industries.bytes() > self.most {
            let Some((_, leads)) = self.agents.pop_lru() else { return };
            self.bytes -= size(&leads);
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "gauges are floats; bytes stay far below 2^53")]
    pub(super) fn report(&self) {
        metrics::gauge!("projector_agents_held").set(self.agents.len() as f64);
        metrics::gauge!("projector_agents_held_bytes")
            .set((self.bytes + self.industries.bytes()) as f64);
    }
}

fn size(leads: &Vec<Lead>) -> usize {
    AGENT + leads.capacity() * size_of::<Lead>()
}

fn count(name: &'static str, agents: usize) {
    metrics::counter!(name).increment(u64::try_from(agents).unwrap_or(u64::MAX));
}
