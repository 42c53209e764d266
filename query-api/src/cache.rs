//! Finished answers, in two levels: this process's memory, and Redis behind it, which all processes
//! share and nobody needs. Keys carry the version of the org's read models, so nothing is ever deleted;
//! a cached answer is late or absent, never wrong.

mod entry;
mod shared;

use std::{sync::Arc, time::Duration};

use axum::http::HeaderValue;
use chrono::TimeDelta;
use tokio::sync::Mutex;

pub(crate) use entry::Entry;
pub(crate) use shared::Shared;

use crate::db;

/// Bytes of the first level.
const BYTES: u64 = 64 * 1024 * 1024;
/// How long an old answer serves while it is made anew: with the second that it is fresh, two.
const GRACE: TimeDelta = TimeDelta::milliseconds(900);
/// Questions whose answers are being made at the same time; beyond them a second one may be made.
const FLIGHTS: u64 = 100_000;

pub(crate) struct Cache {
    near: moka::future::Cache<String, Arc<Entry>>,
    far: Arc<Shared>,
    flights: moka::future::Cache<String, Arc<Mutex<()>>>,
    ttl: Duration,
}

/// Where an answer came from, for `Cache-Status` (RFC 9211) and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Near,
    /// From memory, and being made anew.
    Stale,
    Far,
    Database,
    /// The versions are not known, so nothing may be cached.
    Uncached,
}

impl Origin {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Near => "memory",
            Self::Stale => "stale",
            Self::Far => "redis",
            Self::Database => "database",
            Self::Uncached => "bypass",
        }
    }

    pub(crate) fn status(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Near => "memory; hit",
            Self::Stale => "memory; hit; detail=stale-while-revalidate",
            Self::Far => "redis; hit, memory; fwd=miss; stored",
            Self::Database => "memory; fwd=miss; stored",
            Self::Uncached => "memory; fwd=bypass",
        })
    }
}

impl Cache {
    pub(crate) fn new(ttl: Duration, far: Arc<Shared>) -> Self {
        let weight = |key: &String, entry: &Arc<Entry>| {
            u32::try_from(key.len() + entry.body.len() + 200).unwrap_or(u32::MAX)
        };
        let near = moka::future::Cache::builder()
            .max_capacity(BYTES)
            .weigher(weight)
            .time_to_live(ttl.mul_f64(1.2))
            .build();
        let flights = moka::future::Cache::builder()
            .max_capacity(FLIGHTS)
            .time_to_idle(Duration::from_secs(30))
            .build();
        Self { near, far, flights, ttl }
    }

    /// How long what changes only with the data may live: with jitter, so that answers that were made
    /// together do not end together.
    pub(crate) fn ttl(&self) -> Duration {
        self.ttl.mul_f64(rand::random_range(0.9..1.1))
    }

    /// The answer from memory, if it has what was asked for, and whether it is fresh. One that has just
    /// got old still serves, while it is made anew.
    pub(crate) async fn near(&self, key: &str, min_seq: i64) -> Option<(Arc<Entry>, bool)> {
        let entry = self.near.get(key).await?;
        let now = db::now();
        let fresh = entry.serves(min_seq, now);
        (fresh || entry.serves(min_seq, now - GRACE)).then_some((entry, fresh))
    }

    pub(crate) async fn far(&self, key: &str, min_seq: i64) -> Option<Arc<Entry>> {
        let bytes = self.far.get(key).await?;
        let Some(entry) = Entry::decode(key, bytes) else {
            metrics::counter!("query_api_redis_rubbish_total").increment(1);
            return None;
        };
        if !entry.serves(min_seq, db::now()) {
            return None;
        }
        let entry = Arc::new(entry);
        self.near.insert(key.to_owned(), Arc::clone(&entry)).await;
        Some(entry)
    }

    pub(crate) async fn store(&self, key: &str, entry: &Arc<Entry>) {
        self.near.insert(key.to_owned(), Arc::clone(entry)).await;
        let lives = (entry.fresh_until - db::now()).to_std().unwrap_or_default();
        self.far.put(key, lives, || entry.encode(key));
    }

    /// Whoever holds it makes the answer; the others wait for it.
    pub(crate) async fn flight(&self, key: &str) -> Arc<Mutex<()>> {
        self.flights.get_with_by_ref(key, async { Arc::default() }).await
    }

    /// Bytes and answers in memory.
    pub(crate) fn size(&self) -> (u64, u64) {
        (self.near.weighted_size(), self.near.entry_count())
    }
}
