//! The ways to the lanes: which lane owns which lead.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Delivery, Item};
use crate::event::LeadKey;

/// Leads are pinned to buckets and buckets to lanes.
pub const BUCKETS: u64 = 1024;

/// Payloads that wait for their lanes or are being written, in KiB. Ordinary events fill the lanes' queues
/// long before: it is events of a mebibyte that must not.
const ROOM: u32 = 64 * 1024;

/// The place that a message takes until it is committed.
pub type Room = OwnedSemaphorePermit;

/// The lanes are gone: the projection is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LanesGone;

/// One way to each lane.
#[derive(Debug, Clone)]
pub struct Routes {
    lanes: Vec<mpsc::Sender<Item>>,
    room: Arc<Semaphore>,
}

impl Routes {
    pub fn new(lanes: Vec<mpsc::Sender<Item>>) -> Self {
        Self { lanes, room: Arc::new(Semaphore::new(usize::try_from(ROOM).unwrap_or(0))) }
    }

    /// Hands a message to the lane of its lead, when there is room for it.
    pub async fn deliver(&self, delivery: Delivery) -> Result<(), LanesGone> {
        let bucket = bucket_of(&delivery);
        let kibibytes = u32::try_from(delivery.payload.len() / 1024).unwrap_or(ROOM);
        let room = Arc::clone(&self.room).acquire_many_owned((kibibytes + 1).min(ROOM));
        let room = room.await.map_err(|_| LanesGone)?;
        self.send(bucket, Item::Event(Box::new(delivery), Some(room))).await
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
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn large_messages_wait_for_room_and_not_in_memory() {
        let (sender, mut lane) = mpsc::channel(1000);
        let routes = Routes::new(vec![sender]);
        let large = |seq| Delivery {
            seq,
            trace_id: None,
            payload: vec![b'x'; 1024 * 1024].into(),
            envelope: Err("none".to_owned()),
        };
        let mut taken = 0;
        while let Ok(sent) =
            timeout(Duration::from_millis(200), routes.deliver(large(taken + 1))).await
        {
            sent.unwrap();
            taken += 1;
        }
        assert_eq!(taken, 63, "64 MiB less what each takes beside its mebibyte");
        // A message takes its place until it is dropped, not until it is received.
        let first = lane.recv().await;
        let held = timeout(Duration::from_millis(200), routes.deliver(large(100))).await;
        assert!(held.is_err());
        drop(first);
        timeout(Duration::from_secs(5), routes.deliver(large(100))).await.unwrap().unwrap();
    }

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
