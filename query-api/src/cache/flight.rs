//! One question that is being answered: whoever has the turn makes the answer, the others wait for it, also
//! where it fails.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::problem::Problem;

#[derive(Debug, Default)]
pub(crate) struct Flight {
    /// How often somebody's turn has ended.
    ended: Arc<AtomicU64>,
    /// Why the last one failed, if it did.
    failed: Arc<Mutex<Option<Problem>>>,
}

/// It is free again when it is dropped; then nobody learns how it ended.
pub(crate) struct Turn {
    ended: Arc<AtomicU64>,
    failed: OwnedMutexGuard<Option<Problem>>,
}

impl Flight {
    /// The turn; or why one failed that ended while this one was waited for.
    pub(crate) async fn turn(&self) -> Result<Turn, Problem> {
        let before = self.ended.load(Ordering::Acquire);
        let failed = Arc::clone(&self.failed).lock_owned().await;
        let waited = self.ended.load(Ordering::Acquire) != before;
        match &*failed {
            Some(problem) if waited => Err(problem.clone()),
            _ => Ok(Turn { ended: Arc::clone(&self.ended), failed }),
        }
    }

    /// The turn, if nobody has it.
    pub(crate) fn turn_now(&self) -> Option<Turn> {
        let failed = Arc::clone(&self.failed).try_lock_owned().ok()?;
        Some(Turn { ended: Arc::clone(&self.ended), failed })
    }
}

impl Turn {
    /// Tells those who wait how it ended.
    pub(crate) fn end<T>(mut self, outcome: &Result<T, Problem>) {
        // Who asked for a later sequence is behind; those who asked for none are not.
        let shared = |problem: &&Problem| !matches!(problem, Problem::Behind { .. });
        *self.failed = outcome.as_ref().err().filter(shared).cloned();
        self.ended.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_is_of_those_who_waited_for_it_and_of_nobody_later() {
        let flight = Flight::default();
        let maker = flight.turn().await.unwrap();
        assert!(flight.turn_now().is_none());
        let mut waiting = Box::pin(flight.turn());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        maker.end::<()>(&Err(Problem::Unavailable));
        assert!(matches!(waiting.await, Err(Problem::Unavailable)));
        let later = flight.turn().await.unwrap();
        let mut waiting = Box::pin(flight.turn());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(later);
        assert!(waiting.await.is_ok(), "how that one ended is not known");
    }

    #[tokio::test]
    async fn who_is_behind_is_so_alone() {
        let flight = Flight::default();
        let maker = flight.turn().await.unwrap();
        let mut waiting = Box::pin(flight.turn());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        maker.end::<()>(&Err(Problem::Behind { asked: 2, applied: 1 }));
        assert!(waiting.await.is_ok());
    }
}
