//! The ways to the lanes: which lane owns which lead.

use tokio::sync::mpsc;

use super::{Delivery, Item};
use crate::event::LeadKey;

/// Leads are pinned to buckets and buckets to lanes.
pub const BUCKETS: u64 = 1024;

/// The lanes are gone: the projection is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanesGone;

/// One way to each lane.
#[derive(Debug, Clone)]
pub struct Routes {
    lanes: Vec<mpsc::Sender<Item>>,
}

impl Routes {
    pub fn new(lanes: Vec<mpsc::Sender<Item>>) -> Self {
        Self { lanes }
    }

    /// Hands a message to the lane of its lead.
    pub async fn deliver(&self, delivery: Delivery) -> Result<(), LanesGone> {
        let bucket = bucket_of(&delivery);
        self.send(bucket, Item::Event(Box::new(delivery))).await
    }

    pub async fn retry(&self, key: LeadKey) -> Result<(), LanesGone> {
        self.send(bucket(&key.org_id, key.board_id, key.item_id), Item::Retry(key)).await
    }

    /// Tells every lane that all up to here was delivered.
    pub async fn advance(&self, seq: u64) -> Result<(), LanesGone> {
        for lane in &self.lanes {
            lane.send(Item::Advance(seq)).await.map_err(|_| LanesGone)?;
        }
        Ok(())
    }

    async fn send(&self, bucket: u64, item: Item) -> Result<(), LanesGone> {
        let count = u64::try_from(self.lanes.len()).unwrap_or(1).max(1);
        let lane = usize::try_from(bucket % count).ok().and_then(|lane| self.lanes.get(lane));
        lane.ok_or(LanesGone)?.send(item).await.map_err(|_| LanesGone)
    }
}

/// The bucket of a message's lead; what has no lead is in the bucket of lead 0.
pub fn bucket_of(delivery: &Delivery) -> u64 {
    delivery.envelope.as_ref().map_or(0, |envelope| {
        bucket(&envelope.org, envelope.board_id.unwrap_or(0), envelope.item_id.unwrap_or(0))
    })
}

/// FNV-1a, written out because it must be the same in every build: a lane's position means the leads
/// that hash to it.
pub fn bucket(org_id: &str, board_id: i64, item_id: i64) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in org_id.bytes().chain([board_id, item_id].into_iter().flat_map(i64::to_le_bytes)) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The low bits of FNV are its weakest.
    (hash >> 32) % BUCKETS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_has_the_same_bucket_in_every_build() {
        assert_eq!(bucket("demo", 9001, 42), 955);
        assert_eq!(bucket("demo", 9001, 43), 708);
    }

    #[test]
    fn buckets_are_even_enough_for_lanes() {
        let mut lanes = [0_u32; 8];
        for item in 0..8000 {
            lanes[usize::try_from(bucket("demo", 9001, item) % 8).unwrap()] += 1;
        }
        assert!(lanes.iter().all(|count| (800..1200).contains(count)), "{lanes:?}");
    }
}
