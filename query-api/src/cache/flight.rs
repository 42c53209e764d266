//! One question that is being answered: whoever has the turn makes the answer, the others wait for it, also
//! where it fails.

use std::{
    collections::HashMap,
    sync::{
        self, Arc, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::problem::Problem;

type ByKey = sync::Mutex<HashMap<String, Weak<Flight>>>;

/// All questions that are being answered: as many as there are requests under way.
#[derive(Debug, Default)]
pub(crate) struct Flights(Arc<ByKey>);

#[derive(Debug)]
pub(crate) struct Flight {
    key: String,
    all: Arc<ByKey>,
    /// How often somebody's turn has ended.
    ended: AtomicU64,
    /// Why the last one failed, if it did.
    failed: Arc<Mutex<Option<Problem>>>,
}

/// It is free again when it is dropped; then nobody learns how it ended.
pub(crate) struct Turn {
    failed: OwnedMutexGuard<Option<Problem>>,
    flight: Arc<Flight>,
}

impl Flights {
    pub(crate) fn of(&self, key: &str) -> Arc<Flight> {
        let mut all = lock(&self.0);
        if let Some(flight) = all.get(key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(Flight {
            key: key.to_owned(),
            all: Arc::clone(&self.0),
            ended: AtomicU64::default(),
            failed: Arc::default(),
        });
        all.insert(key.to_owned(), Arc::downgrade(&flight));
        flight
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut all = lock(&self.all);
        // Under the same key there may be the next one already.
        if all.get(&self.key).is_some_and(|flight| flight.strong_count() == 0) {
            all.remove(&self.key);
        }
    }
}

fn lock(all: &ByKey) -> MutexGuard<'_, HashMap<String, Weak<Flight>>> {
    all.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flight {
    /// The turn; or why one failed that ended while this one was waited for.
    pub(crate) async fn turn(self: Arc<Self>) -> Result<Turn, Problem> {
        let before = self.ended.load(Ordering::Acquire);
        let failed = Arc::clone(&self.failed).lock_owned().await;
        let waited = self.ended.load(Ordering::Acquire) != before;
        match &*failed {
            Some(problem) if waited => Err(problem.clone()),
            _ => Ok(Turn { failed, flight: self }),
        }
    }

    /// The turn, if nobody has it.
    pub(crate) fn turn_now(self: Arc<Self>) -> Option<Turn> {
        let failed = Arc::clone(&self.failed).try_lock_owned().ok()?;
        Some(Turn { failed, flight: self })
    }
}

impl Turn {
    /// Tells those who wait how it ended.
    pub(crate) fn end<T>(mut self, outcome: &Result<T, Problem>) {
        // Who asked for a later sequence is behind; those who asked for none are not.
        let shared = |problem: &&Problem| !matches!(problem, Problem::Behind { .. });
        *self.failed = outcome.as_ref().err().filter(shared).cloned();
        self.flight.ended.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_is_of_those_who_waited_for_it_and_of_nobody_later() {
        let flights = Flights::default();
        let maker = flights.of("key").turn().await.unwrap();
        assert!(flights.of("key").turn_now().is_none());
        let mut waiting = Box::pin(flights.of("key").turn());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        maker.end::<()>(&Err(Problem::Unavailable));
        assert!(matches!(waiting.await, Err(Problem::Unavailable)));
        let later = flights.of("key").turn().await.unwrap();
        let mut waiting = Box::pin(flights.of("key").turn());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(later);
        assert!(waiting.await.is_ok(), "how that one ended is not known");
    }

    #[tokio::test]
    async fn who_is_behind_is_so_alone() {
        let flights = Flights::default();
        let maker = flights.of("key").turn().await.unwrap();
        let mut waiting = Box::pin(flights.of("key").turn());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        maker.end::<()>(&Err(Problem::Behind { asked: 2, applied: 1 }));
        assert!(waiting.await.is_ok());
    }

    #[tokio::test]
    async fn a_question_that_nobody_asks_any_more_is_forgotten() {
        let flights = Flights::default();
        let maker = flights.of("key").turn().await.unwrap();
        let waiting = flights.of("key");
        maker.end(&Ok(()));
        assert_eq!(lock(&flights.0).len(), 1, "somebody still waits");
        drop(waiting);
        assert_eq!(lock(&flights.0).len(), 0);
    }
}
