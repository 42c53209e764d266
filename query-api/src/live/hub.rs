//! Where changes become hints: once for each process, however many listen.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use projector::version::Topic;
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
/// And of all keys: each holds a connection, and reads need some, too.
const ALL_STREAMS: usize = 8000;
/// Between two tries to find out how far the read models are, and how long one may take.
const RETRY: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_secs(2);

/// An org's read models are of this version, and have everything up to `seq`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hint {
    pub(super) seq: i64,
    pub(super) version: i64,
    /// The most that has changed since the hint before: leads are more than metrics alone.
    pub(super) topic: Topic,
}

/// What Postgres says of an org whose version was raised.
#[derive(Debug, sqlx::FromRow)]
struct Raised {
    org_id: String,
    version: i64,
    /// As many of its steps were made for AgentMetrics alone.
    of_metrics: i64,
    seq: i64,
}

const RAISED: &str = concat!(
    "select org_id, version, of_metrics, (",
    db::applied!(),
    ") as seq from org_version where org_id = any($1)"
);

#[derive(Debug, Default)]
pub(crate) struct Hub {
    orgs: Mutex<HashMap<String, Channel>>,
    open: Arc<Mutex<HashMap<Uuid, usize>>>,
}

#[derive(Debug)]
struct Channel {
    ring: VecDeque<Hint>,
    /// The last version that was told, and how many of its steps were about leads.
    told: Option<(i64, i64)>,
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
        let all: usize = open.values().sum();
        let count = open.entry(key).or_default();
        if *count >= STREAMS || all >= ALL_STREAMS {
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
        let backlog = seen.and_then(|seen| channel.missed(seen));
        Subscription { hints, backlog }
    }

    /// Turns changes of versions into hints until told to stop. What can't be told now is told when Postgres
    /// answers again, each org's last version.
    pub(crate) async fn run(&self, versions: &Versions, pool: &PgPool, stop: CancellationToken) {
        let mut changes = versions.changes();
        let mut untold = HashSet::<String>::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.recv() => match change {
                    Ok(org) => _ = untold.insert(org),
                    // Whose changes were missed is not known.
                    Err(RecvError::Lagged(_)) => untold.extend(versions.all_orgs()),
                    Err(RecvError::Closed) => return,
                },
                () = sleep(RETRY), if !untold.is_empty() => {}
            }
            let orgs: Vec<&String> = untold.iter().collect();
            let look = sqlx::query_as(RAISED).bind(orgs).fetch_all(pool);
            if let Ok(Ok(raised)) = timeout(LOOK, look).await {
                untold.clear();
                raised.into_iter().for_each(|raised| self.tell(raised));
            }
        }
    }

    fn tell(&self, Raised { org_id, version, of_metrics, seq }: Raised) {
        let mut orgs = lock(&self.orgs);
        orgs.entry(org_id).or_default().tell(seq, version, version - of_metrics);
    }
}

impl Channel {
    fn tell(&mut self, seq: i64, version: i64, of_leads: i64) {
        let told = self.told.replace((version, of_leads));
        if told.is_some_and(|told| told.0 == version) {
            return;
        }
        // Less than before is an older copy of the database, in which everything may differ.
        let of_leads = told.is_none_or(|told| told.0 > version || told.1 != of_leads);
        let topic = if of_leads { Topic::Leads } else { Topic::Metrics };
        let hint = Hint { seq, version, topic };
        if self.ring.len() == RING {
            self.ring.pop_front();
        }
        self.ring.push_back(hint);
        // Nobody listens: fine.
        let _ = self.sender.send(hint);
    }

    /// What changes without a new event (figures that the clock overtakes, a repair) has the sequence of before:
    /// of several hints with one sequence nobody knows which the client has, so it may have the first.
    fn missed(&self, seen: i64) -> Option<Option<Hint>> {
        let first = self.ring.iter().position(|hint| hint.seq == seen);
        // Hints that this process never had, or has forgotten.
        let Some(first) = first else { return Some(None) };
        let missed = || self.ring.range(first + 1..);
        let (last, topic) = (missed().next_back()?, missed().map(|hint| hint.topic).max()?);
        Some(Some(Hint { topic, ..*last }))
    }
}

impl Default for Channel {
    fn default() -> Self {
        Self { ring: VecDeque::new(), told: None, sender: broadcast::channel(RING).0 }
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

    fn tell(hub: &Hub, seq: i64, version: i64, of_metrics: i64) {
        hub.tell(Raised { org_id: "demo".into(), version, of_metrics, seq });
    }

    #[test]
    fn who_comes_back_gets_what_changed_without_a_new_event() {
        let hub = Hub::default();
        let backlog =
            |seen| hub.subscribe("demo", Some(seen)).backlog.map(|hint| hint.map(|h| h.version));
        tell(&hub, 7, 1, 0);
        assert_eq!(backlog(7), None, "nothing was missed");
        tell(&hub, 7, 2, 0);
        assert_eq!(backlog(7), Some(Some(2)), "perhaps it has only the first one");
        tell(&hub, 8, 3, 0);
        assert_eq!((backlog(7), backlog(8)), (Some(Some(3)), None));
        assert_eq!(backlog(6), Some(None), "what it has is not known here");
    }

    #[test]
    fn a_hint_is_about_leads_if_one_of_the_versions_since_the_last_was() {
        let hub = Hub::default();
        let mut hints = hub.subscribe("demo", None).hints;
        let mut told = |seq, version, of_metrics| {
            tell(&hub, seq, version, of_metrics);
            hints.try_recv().ok().map(|hint| hint.topic == Topic::Leads)
        };
        assert_eq!(told(5, 10, 4), Some(true), "what was before is not known");
        assert_eq!(told(6, 11, 5), Some(false));
        assert_eq!(told(7, 11, 5), None, "it was told");
        assert_eq!(told(7, 14, 7), Some(true), "two of three were for figures alone");
        assert_eq!(told(8, 15, 8), Some(false));
        assert_eq!(told(3, 9, 2), Some(true), "an older copy of the database");
        let missed = |seen| {
            hub.subscribe("demo", Some(seen)).backlog.flatten().unwrap().topic == Topic::Leads
        };
        assert!(missed(5) && missed(6));
        tell(&hub, 9, 10, 3);
        assert!(!missed(3));
    }
}
