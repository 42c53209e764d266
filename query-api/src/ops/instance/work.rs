//! The turn of long work: one at a time in each process, and how far it is while it goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use projector::rebuild::Report;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) struct LongWork {
    turn: Arc<Semaphore>,
    present: Mutex<Option<(i64, Progress)>>,
}

/// What is being done, how much of it, and of how much.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Progress {
    what: &'static str,
    done: u64,
    total: u64,
}

/// Whoever has it does long work; it ends with its handle.
pub(super) struct Turn {
    work: Arc<LongWork>,
    _permit: OwnedSemaphorePermit,
}

impl Default for LongWork {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), present: Mutex::default() }
    }
}

impl LongWork {
    pub(super) fn take(self: &Arc<Self>) -> Option<Turn> {
        let permit = Arc::clone(&self.turn).try_acquire_owned().ok()?;
        Some(Turn { work: Arc::clone(self), _permit: permit })
    }

    /// Of the work with this audit row, if it is the present one of this process and has told something.
    pub(super) fn progress(&self, id: i64) -> Option<Progress> {
        self.present().filter(|(present, _)| *present == id).map(|(_, progress)| progress)
    }

    fn present(&self) -> MutexGuard<'_, Option<(i64, Progress)>> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Where the work with this audit row tells how far it is.
    pub(super) fn report(&self, id: i64) -> Report {
        let work = Arc::clone(&self.work);
        Arc::new(move |what, done, total| {
            *work.present() = Some((id, Progress { what, done, total }));
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.work.present() = None;
    }
}
