//! The versions of the orgs' read models, as this process knows them: told by Postgres, and asked for
//! as a fallback. A version that was not confirmed for a while is no version: then nothing is cached.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

use sqlx::{
    PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tokio::{sync::broadcast, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

const CHANNEL: &str = "leadpulse_version";
/// Between two looks at all versions.
const LOOK: Duration = Duration::from_secs(1);
/// A version is believed this long after the last look.
const BELIEVED: Duration = Duration::from_secs(3);
/// Changes kept for those who listen in this process.
const RING: usize = 1024;

#[derive(Debug)]
pub(crate) struct Versions {
    known: RwLock<Known>,
    /// The orgs whose versions have changed.
    changes: broadcast::Sender<String>,
}

#[derive(Debug, Default)]
struct Known {
    by_org: HashMap<String, i64>,
    confirmed: Option<Instant>,
}

impl Default for Versions {
    fn default() -> Self {
        Self { known: RwLock::default(), changes: broadcast::channel(RING).0 }
    }
}

impl Versions {
    /// The org's version; none while it can't be known.
    pub(crate) fn of(&self, org: &str, now: Instant) -> Option<i64> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let believed = known.confirmed.is_some_and(|at| now.duration_since(at) < BELIEVED);
        believed.then(|| known.by_org.get(org).copied().unwrap_or(0))
    }

    pub(crate) fn are_known(&self) -> bool {
        self.of("", Instant::now()).is_some()
    }

    pub(crate) fn all_orgs(&self) -> Vec<String> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).by_org.keys().cloned().collect()
    }

    pub(crate) fn changes(&self) -> broadcast::Receiver<String> {
        self.changes.subscribe()
    }

    /// What a look at the table found is newer than all that was heard before it, also where it is less:
    /// the database may be an older copy.
    fn found(&self, org: String, version: i64) {
        self.learn(org, version, |known, version| known != version);
    }

    /// What is heard may have waited behind a look that knew more.
    fn heard(&self, org: String, version: i64) {
        self.learn(org, version, |known, version| known < version);
    }

    fn learn(&self, org: String, version: i64, is_news: impl Fn(i64, i64) -> bool) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let current = known.by_org.entry(org.clone()).or_default();
        if is_news(*current, version) {
            *current = version;
            drop(known);
            // Nobody listens: fine.
            let _ = self.changes.send(org);
        }
    }

    /// Follows the versions until told to stop, through whatever happens to Postgres.
    pub(crate) async fn follow(&self, pool: &PgPool, stop: CancellationToken) {
        // The listener keeps its connection for good: it must not take one of the reads'.
        let options = pool.connect_options().as_ref().clone();
        let own = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => return,
                ended = self.listen(&own, pool) => {
                    if let Err(error) = ended {
                        debug!(%error, "versions are not followed, trying again");
                    }
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK / 4) => {}
            }
        }
    }

    async fn listen(&self, own: &PgPool, pool: &PgPool) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(own).await?;
        listener.listen(CHANNEL).await?;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = listener.try_recv() => {
                    // None: the connection was lost and messages with it.
                    let Some(told) = told? else { return Ok(()) };
                    let change = told.payload().rsplit_once(':');
                    if let Some((org, Ok(version))) = change.map(|(org, v)| (org, v.parse())) {
                        self.heard(org.to_owned(), version);
                    }
                }
                // A connection that hangs must not keep what is heard meanwhile waiting.
                _ = look.tick() => timeout(BELIEVED, self.look(pool))
                    .await
                    .unwrap_or(Err(sqlx::Error::PoolTimedOut))?,
            }
        }
    }

    async fn look(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        let started = Instant::now();
        let versions: Vec<(String, i64)> =
            sqlx::query_as("select org_id, version from org_version").fetch_all(pool).await?;
        for (org, version) in versions {
            self.found(org, version);
        }
        self.known.write().unwrap_or_else(PoisonError::into_inner).confirmed = Some(started);
        Ok(())
    }
}
