//! One lead's history, read from the stream.

use async_nats::jetstream::stream::Stream;
use leadpulse_service::config::Board;

use super::{
    ReadError,
    range::{Bounds, RangeReader, Select},
};
use crate::{
    event::{self, LeadEvent, LeadKey, Meaning},
    fold::{self, LeadRow, LeadState},
    lane::Delivery,
    mapping::Mapping,
    store::{LeftOut, StreamIdentity},
};

/// What the stream has of one lead, in order. Each event stands beside the message that it came in.
#[derive(Debug, Default)]
pub struct LeadHistory {
    pub events: Vec<(LeadEvent, Delivery)>,
    /// Events that no fold applies: they wait in the dead letters, or an operator skipped them.
    pub left_out: Vec<(LeadEvent, Delivery)>,
}

impl LeadHistory {
    /// Reads the lead's board in these bounds; an unmapped board has no leads.
    pub async fn read(
        stream: &Stream,
        identity: &StreamIdentity,
        bounds: Bounds,
        key: &LeadKey,
        mapping: &Mapping,
        left_out: &LeftOut,
    ) -> Result<Self, ReadError> {
        let select = Select {
            org: Some(key.org_id.clone()),
            board: Some(key.board_id),
            item: Some(key.item_id),
            kind: None,
        };
        let mut reader = RangeReader::open(stream, identity, bounds, select).await?;
        let mut history = Self::default();
        while let Some(chunk) = reader.next().await? {
            for delivery in chunk {
                let Ok(envelope) = &delivery.envelope else { continue };
                let meaning = event::decode(envelope, delivery.seq, delivery.trace_id, mapping);
                let Meaning::Lead(event) = meaning else { continue };
                let to = if left_out.contains(event.seq, &delivery.envelope) {
                    &mut history.left_out
                } else {
                    &mut history.events
                };
                to.push((event, delivery));
            }
        }
        Ok(history)
    }

    /// The lead after all its events; none if there is none that counts.
    pub fn fold(&self, board: &Board) -> Option<(LeadState, LeadRow)> {
        fold::fold_all(self.events.iter().map(|(event, _)| event), board)
    }
}
