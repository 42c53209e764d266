//! Poison parks the key, not the projection: when Postgres refuses a batch for its data, the leads to
//! blame are found by trial transactions that are rolled back, and their events go to the dead letters.

use std::collections::BTreeSet;

use super::{Lane, batch::Batch};
use crate::{
    event::LeadKey,
    fold::LeadRow,
    store::{self, Known, WriteError},
};

impl Lane {
    /// Parks what Postgres refuses. If nothing is refused alone, the fault was none of the data.
    pub(super) async fn park_poison(
        &mut self,
        batch: &mut Batch,
        cause: &sqlx::Error,
    ) -> Result<(), WriteError> {
        let reason = cause.to_string();
        let refused = self.refused_users(batch).await?;
        batch.park_users(&refused, &reason);
        let mut suspects = vec![batch.keys().cloned().collect::<Vec<_>>()];
        let mut found = Vec::new();
        while let Some(keys) = suspects.pop() {
            if self.accepts(batch, &keys).await? {
                continue;
            }
            match <[LeadKey; 1]>::try_from(keys) {
                Ok([key]) => found.push(key),
                Err(mut keys) => {
                    let half = keys.split_off(keys.len() / 2);
                    suspects.extend([keys, half]);
                }
            }
        }
        let mut known = store::load_leads(&mut *self.pool.acquire().await?, &found).await?;
        for key in found {
            // One that can't be read was parked before.
            let before = known.remove(&key).and_then(Result::ok).unwrap_or_default();
            let from = self.first_refused(batch, &key, &before).await?;
            batch.park(&key, from, &reason, before, &self.mapping);
        }
        Ok(())
    }

    /// The snapshots of users, of which there are few, that Postgres does not take.
    async fn refused_users(&self, batch: &Batch) -> Result<BTreeSet<u64>, WriteError> {
        let mut refused = BTreeSet::new();
        for user in batch.users() {
            let mut tx = store::begin(&self.pool).await?;
            let outcome = store::upsert_users(&mut tx, [user]).await;
            tx.rollback().await?;
            if !is_taken(outcome)? {
                refused.insert(user.seq);
            }
        }
        Ok(refused)
    }

    /// Too many parked leads in a short time, or messages that can't be read, are no bad data: the projection
    /// stops where it is, and a systemic fault does not fill the table of dead letters.
    pub(super) async fn refuse_systemic_faults(&self, batch: &Batch) -> Result<(), WriteError> {
        let now = batch.parked_leads().count() + batch.unreadable();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let before = store::recently_parked(&mut *self.pool.acquire().await?).await?;
        let refused = before.saturating_add(now);
        if refused <= self.parked_leads_limit {
            return Ok(());
        }
        let cause = batch.last_refusal().unwrap_or("an event of a lead that waits").to_owned();
        Err(WriteError::Systemic { refused, cause, to: batch.to })
    }

    async fn accepts(&self, batch: &Batch, keys: &[LeadKey]) -> Result<bool, WriteError> {
        let rows: Vec<_> = batch
            .changed()
            .filter(|(key, _)| keys.contains(key))
            .map(|(key, row)| (key, row, Vec::new()))
            .collect();
        if rows.is_empty() { Ok(true) } else { self.trial(&rows).await }
    }

    /// The first event of the lead after which its row is refused; those before it can be applied.
    async fn first_refused(
        &self,
        batch: &Batch,
        key: &LeadKey,
        before: &Known,
    ) -> Result<usize, WriteError> {
        let Some(lead) = batch.leads.get(key) else { return Ok(0) };
        let Some(board) = self.mapping.board(&key.org_id, key.board_id) else { return Ok(0) };
        let mut state = before.state.clone();
        for (index, (event, _)) in lead.events.iter().enumerate() {
            state.apply(event);
            let Some(row) = state.row(board) else { continue };
            if !self.trial(&[(key, &row, Vec::new())]).await? {
                return Ok(index);
            }
        }
        Ok(0)
    }

    /// Would Postgres take these rows? Nothing stays of the try.
    async fn trial(&self, rows: &[(&LeadKey, &LeadRow, Vec<u8>)]) -> Result<bool, WriteError> {
        let mut tx = store::begin(&self.pool).await?;
        let outcome = store::upsert_leads(&mut tx, rows).await;
        tx.rollback().await?;
        is_taken(outcome)
    }
}

fn is_taken(outcome: Result<(), sqlx::Error>) -> Result<bool, WriteError> {
    match outcome.map_err(WriteError::from) {
        Ok(()) => Ok(true),
        Err(WriteError::Permanent(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
