//! What this process knows of keys. A key that is in use is followed: one statement looks at all of them
//! twice a second, so that a request with a known key asks nobody. Both that and look-ups have connections
//! of their own: they neither wait for reads nor keep them waiting.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use metrics::counter;
use moka::Expiry;
use sqlx::{PgPool, postgres::PgPoolOptions};
use tokio::{
    sync::Semaphore,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use crate::problem::Problem;

/// Between two looks at the keys that are in use.
const LOOK: Duration = Duration::from_millis(500);
/// How long a look is believed: a revoked key fails everywhere within this time.
const BELIEVED: Duration = Duration::from_millis(1500);
/// Looks after the last use for which a key is followed: a minute's.
const FOLLOWED: u32 = 120;
/// How long it is known that there is no such key.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Keys remembered at most, known and unknown ones alike.
const REMEMBERED: u64 = 10_000;
/// Keys that are looked up at the same time.
const LOOK_UPS: u32 = 4;
/// A look-up waits this long for its turn.
const QUEUE: Duration = Duration::from_secs(1);

type Hash = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub(super) struct Stored {
    hash: Hash,
    pub(super) id: Uuid,
    /// None of a key of the whole instance.
    pub(super) org_id: Option<String>,
    pub(super) scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// A key, as a look has found it. Later looks that find it the same move the end of the belief on.
#[derive(Debug)]
pub(crate) struct Found {
    stored: Stored,
    /// Neither revoked nor expired.
    good: bool,
    until: Moment,
    /// Since the last look.
    used: AtomicBool,
    /// Looks since the last use.
    unused: AtomicU32,
}

/// When the database was asked: from before the question, so that a key that is revoked meanwhile is not
/// believed for longer.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Instant,
    now: DateTime<Utc>,
}

/// A point of time that many read and one moves.
#[derive(Debug)]
struct Moment(AtomicU64);

pub(super) struct Known {
    pool: PgPool,
    by_hash: moka::future::Cache<Hash, Option<Arc<Found>>>,
    look_ups: Semaphore,
}

impl Stored {
    fn is_good(&self, now: DateTime<Utc>) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|at| now < at)
    }

    /// Until when what a look has found is believed: not beyond the key's own end.
    fn believed_until(&self, look: Look) -> Instant {
        let left = self.expires_at.and_then(|at| (at - look.now).to_std().ok());
        look.at + left.map_or(BELIEVED, |left| left.min(BELIEVED))
    }
}

impl Found {
    fn new(stored: Stored, look: Look) -> Self {
        let (good, until) = (stored.is_good(look.now), Moment::at(stored.believed_until(look)));
        Self { stored, good, until, used: AtomicBool::new(false), unused: AtomicU32::new(0) }
    }

    pub(super) fn stored(&self) -> &Stored {
        &self.stored
    }

    pub(super) fn hash(&self) -> &Hash {
        &self.stored.hash
    }

    pub(super) fn is_believed(&self, now: Instant) -> bool {
        now < self.until.get()
    }

    fn is_good(&self) -> bool {
        self.good && self.stored.is_good(Utc::now())
    }

    pub(super) fn note_use(&self) {
        // Written once a look: the line is read by all requests with this key.
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Is it in use still? And was it used since the last look?
    fn is_in_use(&self) -> (bool, bool) {
        let used = self.used.swap(false, Ordering::Relaxed);
        if used {
            self.unused.store(0, Ordering::Relaxed);
        }
        (used || self.unused.fetch_add(1, Ordering::Relaxed) < FOLLOWED, used)
    }

    /// A look has found it again: the same, or it ends here.
    fn is_confirmed(&self, stored: &Stored, look: Look) -> bool {
        let same = self.stored == *stored && self.good == stored.is_good(look.now);
        self.until.set(if same { stored.believed_until(look) } else { look.at });
        same
    }
}

impl Look {
    fn now() -> Self {
        Self { at: Instant::now(), now: Utc::now() }
    }
}

/// All moments are counted from here.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Moment {
    fn at(at: Instant) -> Self {
        Self(AtomicU64::new(Self::micros(at)))
    }

    fn micros(at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(*BEGINNING).as_micros()).unwrap_or(u64::MAX)
    }

    fn get(&self) -> Instant {
        *BEGINNING + Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, at: Instant) {
        self.0.store(Self::micros(at), Ordering::Relaxed);
    }
}

impl Known {
    pub(super) fn new(pool: &PgPool) -> Self {
        let options = pool.connect_options().as_ref().clone();
        let pool = PgPoolOptions::new().max_connections(LOOK_UPS + 1).acquire_timeout(QUEUE);
        let pool = pool.connect_lazy_with(options);
        let by_hash = moka::future::Cache::builder()
            .max_capacity(REMEMBERED)
            .expire_after(OnlyTheUnknown)
            .build();
        Self { pool, by_hash, look_ups: Semaphore::new(LOOK_UPS as usize) }
    }

    /// The key, if it is known and neither expired nor revoked.
    pub(super) async fn good(&self, hash: Hash) -> Result<Arc<Found>, Problem> {
        let known = self.by_hash.get(&hash).await;
        let late = known.iter().flatten().any(|found| !found.is_believed(Instant::now()));
        if late {
            self.by_hash.invalidate(&hash).await;
        }
        let found = match known.filter(|_| !late) {
            Some(found) => found,
            None => {
                let looked_up = self.by_hash.try_get_with(hash, self.look_up(hash)).await;
                looked_up.map_err(|error| Problem::from(&*error))?
            }
        };
        let found = found.ok_or(Problem::Unauthorized)?;
        found.note_use();
        if !found.is_good() {
            return Err(Problem::Unauthorized);
        }
        // A look-up that took too long says nothing of now.
        found.is_believed(Instant::now()).then_some(found).ok_or(Problem::Unavailable)
    }

    /// Was it revoked, did it expire, or is it there no more? Not known is no. Who asks uses the key for nothing,
    /// and wants to hear of it.
    pub(super) async fn is_gone(&self, hash: &Hash) -> bool {
        match self.by_hash.get(hash).await {
            Some(Some(found)) => {
                found.unused.store(0, Ordering::Relaxed);
                !found.is_good()
            }
            Some(None) => true,
            None => matches!(self.good(*hash).await, Err(Problem::Unauthorized)),
        }
    }

    async fn look_up(&self, hash: Hash) -> Result<Option<Arc<Found>>, sqlx::Error> {
        let Ok(Ok(_turn)) = timeout(QUEUE, self.look_ups.acquire()).await else {
            return Err(sqlx::Error::PoolTimedOut);
        };
        counter!("query_api_key_look_ups_total").increment(1);
        let asked = timeout(BELIEVED, look_at(&self.pool, &[hash], &[hash])).await;
        let (look, mut stored) = asked.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
        Ok(stored.pop().map(|stored| Arc::new(Found::new(stored, look))))
    }

    pub(super) async fn follow(&self, stop: CancellationToken) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(look.tick()).await.is_some() {
            let looked = timeout(BELIEVED, self.look()).await;
            if let Err(error) = looked.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                debug!(%error, "keys are not followed, trying again");
            }
        }
    }

    async fn look(&self) -> Result<(), sqlx::Error> {
        let (mut followed, mut used) = (HashMap::new(), Vec::new());
        for (hash, found) in &self.by_hash {
            let Some(found) = found else { continue };
            let (is_in_use, since_the_last_look) = found.is_in_use();
            if since_the_last_look {
                used.push(*hash);
            }
            if is_in_use {
                followed.insert(*hash, found);
            } else {
                self.by_hash.invalidate(&*hash).await;
            }
        }
        if followed.is_empty() {
            return Ok(());
        }
        let hashes: Vec<Hash> = followed.keys().copied().collect();
        let (look, found) = look_at(&self.pool, &hashes, &used).await?;
        for stored in found {
            let found = followed.remove(&stored.hash);
            if found.is_some_and(|found| !found.is_confirmed(&stored, look)) {
                let hash = stored.hash;
                self.by_hash.insert(hash, Some(Arc::new(Found::new(stored, look)))).await;
            }
        }
        // The others are there no more.
        for (hash, found) in followed {
            found.until.set(look.at);
            self.by_hash.invalidate(&hash).await;
        }
        Ok(())
    }
}

/// Notes the use at most once a minute and key: a read must not become a write. Who holds a key's row keeps
/// nobody waiting.
async fn look_at(
    pool: &PgPool,
    keys: &[Hash],
    used: &[Hash],
) -> Result<(Look, Vec<Stored>), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let look = Look::now();
    let found = sqlx::query_as(
        "with free as (
             select id from api_key
             where hash = any($2) and (last_used_at is null or last_used_at < now() - interval '1 minute')
             for update skip locked),
         used as (update api_key set last_used_at = now() where id in (select id from free))
         select hash, id, org_id, scopes, expires_at, revoked_at from api_key where hash = any($1)",
    )
    .bind(keys)
    .bind(used)
    .fetch_all(&mut *connection)
    .await?;
    Ok((look, found))
}

/// What is known of a key says itself until when; that there is none, is forgotten.
struct OnlyTheUnknown;

impl Expiry<Hash, Option<Arc<Found>>> for OnlyTheUnknown {
    fn expire_after_create(
        &self,
        _: &Hash,
        found: &Option<Arc<Found>>,
        _: Instant,
    ) -> Option<Duration> {
        found.is_none().then_some(UNKNOWN)
    }

    fn expire_after_update(
        &self,
        hash: &Hash,
        found: &Option<Arc<Found>>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(hash, found, now)
    }
}
