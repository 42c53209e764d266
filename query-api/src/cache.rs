//! Finished answers, in two levels: this process's memory, and Redis behind it, which all processes
//! share and nobody needs. Keys carry the version of the org's read models, so nothing is ever deleted;
//! a cached answer is late or absent, never wrong.

mod entry;
mod flight;
mod shared;
mod tally;

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::HeaderValue;
use chrono::{DateTime, TimeDelta, Utc};
use leadpulse_service::config::Org;
use moka::Expiry;
use serde_json::{Value, json};

pub(crate) use entry::Entry;
use flight::{Flight, Flights};
pub(crate) use shared::{Lease, Shared};
use tally::Tally;

use crate::db;

/// Bytes of the first level.
const BYTES: u64 = 64 * 1024 * 1024;
/// How long an old answer serves while it is made anew: with the second that it is fresh, two.
const GRACE: TimeDelta = TimeDelta::milliseconds(900);
/// The same in the first seconds of a process, in which all that it knows gets old at once.
const GRACE_AT_FIRST: TimeDelta = TimeDelta::seconds(6);
/// How long a process is in its first seconds.
const AT_FIRST: TimeDelta = TimeDelta::seconds(10);
/// What moves with the clock is fresh for this long.
const MOMENT: Duration = Duration::from_secs(1);
const MEDIUM: Duration = Duration::from_secs(300);
const LONG: Duration = Duration::from_secs(1800);

pub(crate) struct Cache {
    near: moka::sync::Cache<String, Arc<Entry>>,
    far: Arc<Shared>,
    flights: Flights,
    short: Duration,
    tally: Tally,
    evicted: Arc<AtomicU64>,
    /// Until when old answers serve for longer.
    lenient_until: OnceLock<DateTime<Utc>>,
}

/// A question, and how often it is asked.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct HotRead {
    pub(crate) org_id: String,
    pub(crate) family: String,
    pub(crate) question: String,
    /// By somebody who may see personal data.
    pub(crate) pii: bool,
    pub(crate) per_second: f64,
}

/// Bytes of a question that the next process is to know: an index of Postgres has a bound on its own.
const LONGEST: usize = 1024;

/// Stands in the key of an answer that only some may see.
const PII: &str = "pii";

/// An answer's name in both levels: one org, one version of its read models, one question.
pub(crate) fn key(family: &str, org_id: &str, version: i64, pii: bool, question: &str) -> String {
    let pii = if pii { PII } else { "" };
    format!("{family}|{org_id}|{version}|{pii}|{question}")
}

/// How long an answer lives, at most: a new version of the org's read models ends them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lives {
    /// The clock alone changes it.
    Moment,
    /// Lists that many questions are asked of, each seldom. `CACHE_TTL_SECONDS`.
    Short,
    Medium,
    /// What hardly anybody changes.
    Long,
}

/// Where an answer came from, for `Cache-Status` (RFC 9211) and the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Near,
    /// From memory, and being made anew.
    Stale,
    /// Another request of this process was making it, and this one waited.
    Collapsed,
    Far,
    Database,
    /// The versions are not known, so nothing may be cached.
    Uncached,
}

impl Origin {
    pub(crate) const ALL: [Self; 6] =
        [Self::Near, Self::Stale, Self::Collapsed, Self::Far, Self::Database, Self::Uncached];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Near => "memory",
            Self::Stale => "stale",
            Self::Collapsed => "collapsed",
            Self::Far => "redis",
            Self::Database => "database",
            Self::Uncached => "bypass",
        }
    }

    pub(crate) fn status(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Near => "memory; hit",
            Self::Stale => "memory; hit; detail=stale-while-revalidate",
            Self::Collapsed => "memory; fwd=miss; collapsed",
            Self::Far => "redis; hit, memory; fwd=miss; stored",
            Self::Database => "memory; fwd=miss; stored",
            Self::Uncached => "memory; fwd=bypass",
        })
    }
}

impl Cache {
    pub(crate) fn new(short: Duration, far: Arc<Shared>) -> Self {
        let weight = |key: &String, entry: &Arc<Entry>| {
            u32::try_from(key.len() + entry.weight()).unwrap_or(u32::MAX)
        };
        let evicted = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&evicted);
        let near = moka::sync::Cache::builder()
            .max_capacity(BYTES)
            .weigher(weight)
            .expire_after(UntilOfNoUse)
            .eviction_listener(move |_, _, cause| {
                if cause == moka::notification::RemovalCause::Size {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build();
        let (flights, tally, lenient_until) = Default::default();
        Self { near, far, flights, short, tally, evicted, lenient_until }
    }

    /// From now on, and for some seconds, old answers serve for longer while they are made anew.
    pub(crate) fn be_lenient(&self) {
        let _ = self.lenient_until.set(db::now() + AT_FIRST);
    }

    /// From now on Redis may be used: it is known whose answers are put there.
    pub(crate) fn belongs_to(&self, instance: [u8; 16]) {
        self.far.belongs_to(instance);
    }

    fn grace(&self, now: DateTime<Utc>) -> TimeDelta {
        let lenient = self.lenient_until.get().is_some_and(|until| now < *until);
        if lenient { GRACE_AT_FIRST } else { GRACE }
    }

    /// What memory was asked for most, the most first: without pages after the first, which belong to one
    /// reader.
    pub(crate) fn asked_most(&self, most: usize) -> Vec<HotRead> {
        let now = db::now();
        let mut asked: Vec<HotRead> =
            self.near.iter().filter_map(|(key, entry)| HotRead::of(&key, &entry, now)).collect();
        asked.sort_by(|a, b| b.per_second.total_cmp(&a.per_second));
        asked.truncate(most);
        asked
    }

    /// With jitter, so that answers that were made together do not end together.
    pub(crate) fn ttl(&self, lives: Lives) -> Duration {
        let class = match lives {
            Lives::Moment => MOMENT,
            Lives::Short => self.short,
            // Whoever wants longer lives for the short class has them for the others, too.
            Lives::Medium => MEDIUM.max(self.short),
            Lives::Long => LONG.max(self.short),
        };
        class.mul_f64(rand::random_range(0.9..1.1))
    }

    /// The answer from memory, if it has what was asked for, and whether it is fresh. One that has just
    /// got old still serves, while it is made anew.
    pub(crate) fn near(&self, key: &str, min_seq: i64) -> Option<(Arc<Entry>, bool)> {
        let entry = self.near.get(key)?;
        let now = db::now();
        let fresh = entry.serves(min_seq, now);
        if !fresh && !entry.serves(min_seq, now - self.grace(now)) {
            return None;
        }
        entry.asked.fetch_add(1, Ordering::Relaxed);
        Some((entry, fresh))
    }

    /// An answer that came from memory a moment ago, if memory still has it, and it is fresh.
    pub(crate) fn still(&self, entry: &Weak<Entry>, min_seq: i64) -> Option<Arc<Entry>> {
        let entry = entry.upgrade().filter(|entry| entry.serves(min_seq, db::now()))?;
        entry.asked.fetch_add(1, Ordering::Relaxed);
        Some(entry)
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
        self.near.insert(key.to_owned(), Arc::clone(&entry));
        Some(entry)
    }

    /// The right to make the answer, among all processes.
    pub(crate) async fn lease(&self, key: &str) -> Lease {
        self.far.lease(key).await
    }

    pub(crate) fn store(&self, key: &str, entry: &Arc<Entry>) {
        self.near.insert(key.to_owned(), Arc::clone(entry));
        let lives = (entry.fresh_until - db::now()).to_std().unwrap_or_default();
        self.far.put(key, lives, || entry.encode(key));
    }

    /// The answer that somebody else has made while this question waited: it was fresh when it was asked, or
    /// later.
    pub(crate) fn made_since(
        &self,
        key: &str,
        min_seq: i64,
        asked: DateTime<Utc>,
    ) -> Option<Arc<Entry>> {
        let entry = self.near.get(key).filter(|entry| entry.serves(min_seq, asked))?;
        entry.asked.fetch_add(1, Ordering::Relaxed);
        Some(entry)
    }

    pub(crate) fn flight(&self, key: &str) -> Arc<Flight> {
        self.flights.of(key)
    }

    pub(crate) fn count(&self, family: &'static str, origin: Origin) {
        self.tally.count(family, origin);
    }

    /// Tells the metrics, and gives what `/health/detailed` shows.
    #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
    pub(crate) fn publish(&self) -> Value {
        let (bytes, answers) = (self.near.weighted_size(), self.near.entry_count());
        let evicted = self.evicted.load(Ordering::Relaxed);
        metrics::gauge!("query_api_cache_bytes").set(bytes as f64);
        metrics::gauge!("query_api_cache_answers").set(answers as f64);
        metrics::counter!("query_api_cache_evicted_total").absolute(evicted);
        self.tally.publish();
        json!({
            "bytes": bytes,
            "bytes_limit": BYTES,
            "answers": answers,
            "evicted": evicted,
            "families": self.tally.view(),
        })
    }
}

impl HotRead {
    /// One that nobody has asked for yet.
    pub(crate) fn expected(org: &Org, family: &str, question: String) -> Self {
        let (org_id, family) = (org.id.clone(), family.to_owned());
        Self { org_id, family, question, pii: false, per_second: 0.0 }
    }

    fn of(key: &str, entry: &Entry, now: DateTime<Utc>) -> Option<Self> {
        let mut parts = key.splitn(5, '|');
        let (family, org_id, _, pii) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let question = parts.next()?;
        let cursor = question.split('&').any(|part| part.starts_with("cursor="));
        let times = entry.asked.load(Ordering::Relaxed);
        if cursor || times == 0 || question.len() > LONGEST {
            return None;
        }
        let seconds = (now - entry.at).as_seconds_f64().max(1.0);
        Some(Self {
            org_id: org_id.to_owned(),
            family: family.to_owned(),
            question: question.to_owned(),
            pii: pii == PII,
            per_second: f64::from(times) / seconds,
        })
    }
}

/// An entry leaves memory when it is of no use any more, not even while it is made anew.
struct UntilOfNoUse;

impl Expiry<String, Arc<Entry>> for UntilOfNoUse {
    fn expire_after_create(&self, _: &String, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some((entry.fresh_until + GRACE_AT_FIRST - db::now()).to_std().unwrap_or_default())
    }

    fn expire_after_update(
        &self,
        key: &String,
        entry: &Arc<Entry>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, now)
    }
}
