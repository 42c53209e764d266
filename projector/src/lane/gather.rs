//! How much of what waits for a lane makes one batch: little while it is up to date, so that nobody waits,
//! and much while it is behind, when a commit costs more than its age.

use std::time::{Duration, Instant};

use tokio::{sync::mpsc, time::timeout};

use super::{Item, QUEUE};

/// A batch ends when nothing came for this long, …
const IDLE: Duration = Duration::from_millis(5);
/// … or when it is this old, …
const OLDEST: Duration = Duration::from_millis(50);
/// … or when it has this many events, …
pub(super) const LARGEST: usize = 2000;
/// … or this many while the lane is behind: its queue is as good as full, and latency is lost anyway.
const LARGEST_BEHIND: usize = 5000;

/// The next batch; none when the reader has closed the channel and all was taken.
pub(super) async fn gather(items: &mut mpsc::Receiver<Item>) -> Option<Vec<Item>> {
    let mut taken = Vec::new();
    if items.recv_many(&mut taken, LARGEST).await == 0 {
        return None;
    }
    let started = Instant::now();
    let largest = if items.len() > QUEUE / 2 { LARGEST_BEHIND } else { LARGEST };
    while taken.len() < largest && started.elapsed() < OLDEST {
        let room = largest - taken.len();
        match timeout(IDLE, items.recv_many(&mut taken, room)).await {
            Ok(count) if count > 0 => {}
            Ok(_) | Err(_) => break,
        }
    }
    Some(taken)
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    /// More than any batch should take.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn queue() -> (mpsc::Sender<Item>, mpsc::Receiver<Item>) {
        mpsc::channel(QUEUE)
    }

    async fn send(sender: &mpsc::Sender<Item>, seqs: Range<u64>) {
        for seq in seqs {
            sender.send(Item::Advance(seq)).await.unwrap();
        }
    }

    async fn batch(items: &mut mpsc::Receiver<Item>) -> Option<usize> {
        let taken = timeout(PATIENCE, gather(items)).await.expect("a batch ends");
        taken.map(|taken| taken.len())
    }

    #[tokio::test]
    async fn what_there_is_makes_a_batch_when_no_more_comes() {
        let (sender, mut items) = queue();
        send(&sender, 0..7).await;
        assert_eq!(batch(&mut items).await, Some(7));
        send(&sender, 7..8).await;
        drop(sender);
        assert_eq!(batch(&mut items).await, Some(1));
        assert_eq!(batch(&mut items).await, None);
    }

    #[tokio::test]
    async fn a_batch_has_2000_events_and_5000_of_a_queue_that_is_full() {
        let (sender, mut items) = queue();
        send(&sender, 0..4000).await;
        assert_eq!(batch(&mut items).await, Some(LARGEST));
        assert_eq!(batch(&mut items).await, Some(LARGEST));
        send(&sender, 0..u64::try_from(QUEUE).unwrap()).await;
        let more = tokio::spawn(async move { send(&sender, 0..4000).await });
        assert_eq!(batch(&mut items).await, Some(LARGEST_BEHIND));
        assert_eq!(batch(&mut items).await, Some(LARGEST));
        assert_eq!(batch(&mut items).await, Some(QUEUE + 4000 - LARGEST_BEHIND - LARGEST));
        more.await.unwrap();
    }

    #[tokio::test]
    async fn a_batch_ends_by_its_age_while_events_keep_coming() {
        let (sender, mut items) = queue();
        let coming = tokio::spawn(async move {
            while sender.send(Item::Advance(0)).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let taken = batch(&mut items).await.unwrap();
        assert!((1..LARGEST).contains(&taken), "{taken} events");
        drop(items);
        coming.await.unwrap();
    }
}
