//! A lead's dead letters, applied again in order and in one transaction, by the lane that owns the
//! lead: nobody else writes its row, and its later events keep coming through the same lane.

use tracing::{info, warn};

use super::{
    Delivery, Item, Lane,
    batch::{Batch, damaged_reason},
};
use crate::{
    event::LeadKey,
    reader::envelope_of,
    store::{self, Letter, WriteError},
};

impl Lane {
    /// Applies the letters of a lead. If they are refused again they stay, with the new reason.
    pub(super) async fn retry(&mut self, key: &LeadKey) -> Result<(), WriteError> {
        match self.replay_letters(key).await {
            Ok(count) => {
                info!(
                    board_id = key.board_id,
                    item_id = key.item_id,
                    letters = count,
                    "dead letters applied"
                );
                Ok(())
            }
            Err(WriteError::Permanent(cause)) => {
                warn!(
                    board_id = key.board_id,
                    item_id = key.item_id,
                    "dead letters refused again: {cause}"
                );
                let mut connection = self.pool.acquire().await?;
                let reason = cause.to_string();
                Ok(store::settle_letters(&mut connection, key, Some(&reason)).await?)
            }
            Err(error) => Err(error),
        }
    }

    async fn replay_letters(&mut self, key: &LeadKey) -> Result<usize, WriteError> {
        let mut tx = store::begin(&self.pool).await?;
        store::advance(&mut tx, self.number, self.position, self.position, self.fence).await?;
        let letters = store::letters_of(&mut tx, key).await?;
        let count = letters.len();
        // A letter is older than the position; a batch of its own begins before all of them.
        let items = letters
            .into_iter()
            .map(|letter| Item::Event(Box::new(delivery(letter)), None))
            .collect();
        let mut batch = Batch::of(items, 0, &self.mapping, &Default::default());
        let loaded = store::load_leads(&mut tx, std::slice::from_ref(key)).await?.remove(key);
        let known = loaded.transpose().map_err(|error| {
            WriteError::Permanent(sqlx::Error::Decode(damaged_reason(&error).into()))
        })?;
        batch.fold(|_| known.as_ref(), &self.mapping);
        batch.write(&mut tx).await?;
        crash_point!("retry-applied");
        store::settle_letters(&mut tx, key, None).await?;
        crash_point!("retry-commit");
        tx.commit().await?;
        crash_point!("retry-committed");
        self.aside.unpark(key);
        self.announce(batch);
        Ok(count)
    }
}

fn delivery(letter: Letter) -> Delivery {
    let Letter { seq, trace_id, payload } = letter;
    let envelope = envelope_of(&payload);
    Delivery { seq, trace_id, payload: payload.into(), envelope }
}
