//! The write, guarded against the live projection.

use std::collections::BTreeSet;

use anyhow::Result;
use sqlx::PgConnection;

use super::{
    Ground,
    fold::{Folded, Touched},
};
use crate::{
    event::LeadKey,
    store::{self, Mark},
    version::{self, Topic},
};

/// Leads of one transaction: the lanes wait for its end.
const CHUNK: usize = 500;

impl Ground<'_> {
    /// Writes what changed and is still as it was folded onto; gives the leads that have moved on.
    pub(super) async fn write(&self, folded: &Folded) -> Result<BTreeSet<LeadKey>> {
        let mut moved_on = BTreeSet::new();
        let changed: Vec<(&LeadKey, &Touched)> =
            folded.leads.iter().filter(|(key, lead)| lead.change(key).is_some()).collect();
        for leads in changed.chunks(CHUNK) {
            moved_on.extend(self.write_chunk(leads).await?);
        }
        self.write_users(folded).await?;
        // Also the agents of leads that are as they should be: their figures may have been damaged.
        let mut connection = self.tools.pool.acquire().await?;
        let marks = marks(folded.leads.values().zip(folded.leads.keys()));
        store::mark_dirty(&mut connection, &marks).await?;
        Ok(moved_on)
    }

    async fn write_chunk(&self, leads: &[(&LeadKey, &Touched)]) -> Result<BTreeSet<LeadKey>> {
        let mut tx = store::begin(&self.tools.pool).await?;
        store::hold_lanes(&mut tx, &self.seen.identity).await?;
        let keys: Vec<LeadKey> = leads.iter().map(|(key, _)| (*key).clone()).collect();
        let now = store::load_rows(&mut tx, &keys).await?;
        let (still, moved_on): (Vec<_>, Vec<_>) =
            leads.iter().partition(|(key, lead)| now.get(*key) == lead.stored.as_ref());
        let rows: Vec<_> = still
            .iter()
            .filter_map(|(key, lead)| Some((*key, lead.row.as_ref()?, lead.state.encode())))
            .collect();
        if !rows.is_empty() {
            store::upsert_leads(&mut tx, &rows).await?;
        }
        let marks = marks(still.iter().map(|(key, lead)| (*lead, *key)));
        store::mark_dirty(&mut tx, &marks).await?;
        let orgs: BTreeSet<&String> = still.iter().map(|(key, _)| &key.org_id).collect();
        raise(&mut tx, orgs).await?;
        crash_point!("repair-commit");
        tx.commit().await?;
        Ok(moved_on.into_iter().map(|(key, _)| (*key).clone()).collect())
    }

    async fn write_users(&self, folded: &Folded) -> Result<()> {
        if folded.user_changes().is_empty() {
            return Ok(());
        }
        let mut tx = store::begin(&self.tools.pool).await?;
        store::replace_users(&mut tx, &folded.users).await?;
        let orgs: BTreeSet<&String> = folded.users.iter().map(|(_, user)| &user.org_id).collect();
        raise(&mut tx, orgs).await?;
        Ok(tx.commit().await?)
    }
}

async fn raise(connection: &mut PgConnection, orgs: BTreeSet<&String>) -> Result<(), sqlx::Error> {
    version::raise(connection, orgs.into_iter().map(|org| (org.clone(), Topic::Leads))).await
}

/// All agents that the old or the new rows count for, each as a whole: what had to be repaired may have
/// changed without a mark. These marks hold no read back: the rows that they are about are not newer than
/// before.
fn marks<'a>(leads: impl Iterator<Item = (&'a Touched, &'a LeadKey)>) -> Vec<Mark<'a>> {
    let mut agents = BTreeSet::new();
    for (lead, key) in leads {
        agents.extend(lead.agents().map(|agent| (key.org_id.as_str(), agent)));
    }
    let agents = agents.into_iter();
    agents.map(|(org_id, agent_id)| Mark { org_id, agent_id, lead: None, seq: u64::MAX }).collect()
}

impl Touched {
    pub(super) fn agents(&self) -> impl Iterator<Item = i64> {
        let stored = self.stored.as_ref().map(|(row, _)| row);
        [stored, self.row.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|row| [row.assigned_user_id, row.closed_by_user_id])
            .flatten()
    }
}
