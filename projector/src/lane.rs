//! A lane: the only writer of its share of the leads. It takes a batch, folds it per lead, and writes
//! rows, marks, dead letters and its position in one transaction.

mod batch;
mod gather;
mod poison;
mod retry;
mod routes;
mod unreadable;

use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use leadpulse_nats::Envelope;
use lru::LruCache;
use sqlx::PgPool;
use tokio::sync::{Notify, mpsc};
use tracing::{debug, error};
use uuid::Uuid;

use crate::{
    event::LeadKey,
    mapping::Mapping,
    store::{self, Known, Loaded, SetAside, WriteError},
    version::{Topic, Versions},
};
use batch::Batch;
use gather::{LARGEST, gather};
pub use routes::{BUCKETS, LanesGone, Room, Routes, bucket, bucket_of};
pub use unreadable::read_again;

/// How long one full batch counts for: the next one is being written in this time.
const STILL_BEHIND: Duration = Duration::from_secs(1);
/// Messages that wait for a lane at most; the reader waits when a lane is full.
pub const QUEUE: usize = 4096;
/// Leads whose state a lane keeps in memory, usually.
pub const CACHED_LEADS: NonZeroUsize = NonZeroUsize::new(50_000).unwrap();

/// What the reader sends to a lane, in the stream's order.
#[derive(Debug)]
pub enum Item {
    /// With the room that it takes, if it came from the stream.
    Event(Box<Delivery>, Option<Room>),
    /// Everything up to here that is this lane's was sent: its position may move there.
    Advance(u64),
    /// An operator wants the dead letters of this lead applied again.
    Retry(LeadKey),
}

/// One message of the stream.
#[derive(Debug)]
pub struct Delivery {
    pub seq: u64,
    pub trace_id: Option<Uuid>,
    pub payload: Bytes,
    /// The envelope, or why it can't be read.
    pub envelope: Result<Envelope, String>,
}

/// What lanes tell the rest of the projector.
#[derive(Debug)]
pub struct Progress {
    positions: Vec<AtomicU64>,
    /// When a lane last took a batch that was full: there was more to take.
    behind_at: Mutex<Option<Instant>>,
    /// There are new marks.
    pub marked: Notify,
    pub versions: Versions,
}

impl Progress {
    pub fn new(positions: &[u64]) -> Self {
        let positions = positions.iter().map(|seq| AtomicU64::new(*seq)).collect();
        let behind_at = Mutex::default();
        Self { positions, behind_at, marked: Notify::new(), versions: Versions::default() }
    }

    fn fell_behind(&self) {
        *self.behind_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// The stream has more than the lanes have taken, or had a moment ago.
    pub fn is_behind(&self) -> bool {
        let behind_at = *self.behind_at.lock().unwrap_or_else(PoisonError::into_inner);
        behind_at.is_some_and(|at| at.elapsed() < STILL_BEHIND)
    }

    /// All lanes have everything up to here.
    pub fn applied(&self) -> u64 {
        self.positions.iter().map(|seq| seq.load(Ordering::Acquire)).min().unwrap_or(0)
    }
}

/// What a lane is told at its start.
#[derive(Debug, Clone)]
pub struct LaneSettings {
    pub number: u32,
    pub fence: i64,
    pub position: u64,
    pub mapping: Arc<Mapping>,
    /// So many leads parked within ten minutes are a systemic fault.
    pub parked_leads_limit: i64,
    /// Leads whose state stays in memory: any number is right.
    pub cached_leads: NonZeroUsize,
}

pub struct Lane {
    number: u32,
    fence: i64,
    position: u64,
    pool: PgPool,
    mapping: Arc<Mapping>,
    progress: Arc<Progress>,
    /// States as they are committed, never ahead of the table.
    cache: LruCache<LeadKey, Known>,
    aside: SetAside,
    parked_leads_limit: i64,
}

impl Lane {
    pub async fn open(
        settings: LaneSettings,
        pool: PgPool,
        progress: Arc<Progress>,
    ) -> Result<Self, sqlx::Error> {
        let aside = SetAside::load(&mut *pool.acquire().await?, settings.position).await?;
        Ok(Self {
            number: settings.number,
            fence: settings.fence,
            position: settings.position,
            mapping: settings.mapping,
            parked_leads_limit: settings.parked_leads_limit,
            cache: LruCache::new(settings.cached_leads),
            pool,
            progress,
            aside,
        })
    }

    /// Applies what comes until the reader closes the channel, which is how a lane is stopped: what was
    /// taken from the channel is committed, the rest is read again at the next start.
    pub async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<(), WriteError> {
        while let Some(taken) = gather(&mut items).await {
            if taken.len() >= LARGEST {
                self.progress.fell_behind();
            }
            let retries = retries_in(&taken);
            self.apply(taken).await?;
            for key in retries {
                self.retry(&key).await?;
            }
        }
        Ok(())
    }

    async fn apply(&mut self, items: Vec<Item>) -> Result<(), WriteError> {
        let started = Instant::now();
        let mut batch = Batch::of(items, self.position, &self.mapping, &self.aside);
        if batch.to <= self.position {
            return Ok(());
        }
        let missing =
            batch.keys().filter(|key| !self.cache.contains(key)).cloned().collect::<Vec<_>>();
        // They stand beside the cache until the commit: to put them in could take others of this batch out.
        let mut loaded = Loaded::new();
        if !missing.is_empty() {
            loaded = store::load_leads(&mut *self.pool.acquire().await?, &missing).await?;
        }
        if batch.park_damaged(&loaded) || batch.unreadable() > 0 {
            self.refuse_systemic_faults(&batch).await?;
        }
        let cache = &self.cache;
        batch.fold(|key| cache.peek(key).or_else(|| loaded.get(key)?.as_ref().ok()), &self.mapping);
        match self.write(&batch).await {
            Err(WriteError::Permanent(cause)) => {
                error!(lane = self.number, error = %cause, "postgres refuses a batch, looking for the events to park");
                self.park_poison(&mut batch, &cause).await?;
                self.refuse_systemic_faults(&batch).await?;
                self.write(&batch).await?;
            }
            outcome => outcome?,
        }
        self.committed(batch, started);
        Ok(())
    }

    /// One transaction. The position moves first: its lock keeps a second owner of the lane out.
    async fn write(&self, batch: &Batch) -> Result<(), WriteError> {
        crash_point!("lane-begin");
        let mut tx = store::begin(&self.pool).await?;
        store::advance(&mut tx, self.number, self.position, batch.to, self.fence).await?;
        crash_point!("lane-position");
        batch.write(&mut tx).await?;
        crash_point!("lane-commit");
        tx.commit().await?;
        crash_point!("lane-committed");
        Ok(())
    }

    fn committed(&mut self, batch: Batch, started: Instant) {
        debug!(
            lane = self.number,
            to_seq = batch.to,
            events = batch.events,
            rows = batch.changed().count(),
            "committed"
        );
        metrics::histogram!("projector_commit_seconds").record(started.elapsed().as_secs_f64());
        metrics::histogram!("projector_batch_events_size")
            .record(u32::try_from(batch.events).unwrap_or(u32::MAX));
        metrics::counter!("projector_events_total")
            .increment(u64::try_from(batch.events).unwrap_or(0));
        let rows = batch.changed().count();
        metrics::counter!("projector_rows_written_total")
            .increment(u64::try_from(rows).unwrap_or(0));
        self.position = batch.to;
        let slot =
            usize::try_from(self.number).ok().and_then(|lane| self.progress.positions.get(lane));
        if let Some(slot) = slot {
            slot.store(batch.to, Ordering::Release);
        }
        self.announce(batch);
    }

    /// After the commit: the cache and everybody who waits may know.
    fn announce(&mut self, batch: Batch) {
        let orgs = batch.touched_orgs();
        if !orgs.is_empty() {
            self.progress.versions.touch(orgs, Topic::Leads);
            self.progress.marked.notify_one();
        }
        self.aside.park(batch.parked_leads());
        for (key, known) in batch.into_known() {
            self.cache.put(key, known);
        }
    }
}

fn retries_in(items: &[Item]) -> BTreeSet<LeadKey> {
    let key = |item: &Item| match item {
        Item::Retry(key) => Some(key.clone()),
        Item::Event(..) | Item::Advance(_) => None,
    };
    items.iter().filter_map(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_counts_as_behind_for_a_while_after_a_full_batch() {
        let progress = Progress::new(&[0]);
        assert!(!progress.is_behind());
        progress.fell_behind();
        assert!(progress.is_behind());
        let earlier = Instant::now().checked_sub(STILL_BEHIND);
        *progress.behind_at.lock().unwrap() = earlier;
        assert!(earlier.is_some() && !progress.is_behind());
    }
}
