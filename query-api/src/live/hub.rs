//! Where changes become hints: once for each process, however many listen.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::{
    sync::broadcast::{self, error::RecvError},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{db, limits::Left, problem::Problem, versions::Versions};

/// Hints kept for each org, for those who come back.
const RING: usize = 256;
/// Open streams of one key.
const STREAMS: usize = 5000;
/// Between two tries to find out how far the read models are, and how long one may take.
const RETRY: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_secs(2);

/// An org's read models are of this version, and have everything up to `seq`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hint {
    pub(super) seq: i64,
    pub(super) version: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Hub {
    orgs: Mutex<HashMap<String, Channel>>,
    open: Arc<Mutex<HashMap<Uuid, usize>>>,
}

#[derive(Debug)]
struct Channel {
    ring: VecDeque<Hint>,
    sender: broadcast::Sender<Hint>,
}

pub(super) struct Subscription {
    pub(super) hints: broadcast::Receiver<Hint>,
    /// What comes first: the last hint that was missed, or nothing but the advice to read anew.
    pub(super) backlog: Option<Option<Hint>>,
}

/// One open stream of a key.
pub(super) struct Place {
    key: Uuid,
    open: Arc<Mutex<HashMap<Uuid, usize>>>,
}

impl Hub {
    pub(super) fn enter(&self, key: Uuid, left: &Left) -> Result<Place, Problem> {
        let mut open = lock(&self.open);
        let count = open.entry(key).or_default();
        if *count >= STREAMS {
            return Err(Problem::TooMany { retry_after_seconds: 10, left: left.clone() });
        }
        *count += 1;
        metrics::gauge!("query_api_streams").increment(1.0);
        Ok(Place { key, open: Arc::clone(&self.open) })
    }

    /// `seen` is the sequence of the last hint that the client has.
    pub(super) fn subscribe(&self, org: &str, seen: Option<i64>) -> Subscription {
        let mut orgs = lock(&self.orgs);
        let channel = orgs.entry(org.to_owned()).or_default();
        let hints = channel.sender.subscribe();
        let last = channel.ring.back().copied();
        // What changes without a new event (figures that the clock overtakes, a repair) has the sequence of
        // before: of several hints with one sequence nobody knows which the client has.
        let of = |seen| channel.ring.iter().filter(|hint| hint.seq == seen).count();
        let backlog = match (seen, last) {
            (None, _) => None,
            (Some(seen), Some(last)) if last.seq == seen && of(seen) == 1 => None,
            (Some(seen), Some(last)) if of(seen) > 0 => Some(Some(last)),
            // Hints that this process never had, or has forgotten.
            (Some(_), _) => Some(None),
        };
        Subscription { hints, backlog }
    }

    /// Turns changes of versions into hints until told to stop. What can't be told now is told when Postgres
    /// answers again, each org's last version.
    pub(crate) async fn run(&self, versions: &Versions, pool: &PgPool, stop: CancellationToken) {
        let mut changes = versions.changes();
        let mut untold = HashMap::<String, i64>::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.recv() => match change {
                    Ok(change) => {
                        untold.insert(change.org, change.version);
                    }
                    // Whose changes were missed is not known: a hint too many does no harm.
                    Err(RecvError::Lagged(_)) => untold.extend(versions.all()),
                    Err(RecvError::Closed) => return,
                },
                () = sleep(RETRY), if !untold.is_empty() => {}
            }
            let look = sqlx::query_scalar(db::applied!()).fetch_one(pool);
            if let Ok(Ok(seq)) = timeout(LOOK, look).await {
                for (org, version) in untold.drain() {
                    self.tell(&org, Hint { seq, version });
                }
            }
        }
    }

    fn tell(&self, org: &str, hint: Hint) {
        let mut orgs = lock(&self.orgs);
        let channel = orgs.entry(org.to_owned()).or_default();
        if channel.ring.len() == RING {
            channel.ring.pop_front();
        }
        channel.ring.push_back(hint);
        // Nobody listens: fine.
        let _ = channel.sender.send(hint);
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self { ring: VecDeque::new(), sender: broadcast::channel(RING).0 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = lock(&self.open);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
        metrics::gauge!("query_api_streams").decrement(1.0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_gets_what_changed_without_a_new_event() {
        let hub = Hub::default();
        let backlog =
            |seen| hub.subscribe("demo", Some(seen)).backlog.map(|hint| hint.map(|h| h.version));
        hub.tell("demo", Hint { seq: 7, version: 1 });
        assert_eq!(backlog(7), None, "nothing was missed");
        hub.tell("demo", Hint { seq: 7, version: 2 });
        assert_eq!(backlog(7), Some(Some(2)), "perhaps it has only the first one");
        hub.tell("demo", Hint { seq: 8, version: 3 });
        assert_eq!((backlog(7), backlog(8)), (Some(Some(3)), None));
        assert_eq!(backlog(6), Some(None), "what it has is not known here");
    }
}
