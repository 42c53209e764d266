//! Reads that must have their own writes: waiting for the read models, bounded.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use sqlx::PgPool;
use tokio::{sync::Mutex, time::Instant};

use crate::{db, problem::Problem};

/// Between two looks, however many wait.
const LOOK: Duration = Duration::from_millis(10);

/// The applied sequence that this process has seen last. One look serves all who wait.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    seen: AtomicI64,
    looking: Mutex<()>,
}

impl Applied {
    /// Also where it is less than before: the position may have gone back, and who asks for more must wait here
    /// and not over a snapshot. Of two notes that overtake each other, the worse is a look too many.
    pub(crate) fn note(&self, seq: i64) {
        self.seen.store(seq, Ordering::Relaxed);
    }

    /// Until `asked` is applied, or `deadline`. What is read afterwards still has to be checked: the
    /// position goes back when an operator rebuilds.
    pub(crate) async fn wait(
        &self,
        pool: &PgPool,
        asked: i64,
        deadline: Instant,
    ) -> Result<(), Problem> {
        let waited = tokio::time::timeout_at(deadline, async {
            while self.seen.load(Ordering::Relaxed) < asked {
                let _look = self.looking.lock().await;
                if self.seen.load(Ordering::Relaxed) >= asked {
                    break;
                }
                self.note(sqlx::query_scalar(db::applied!()).fetch_one(pool).await?);
                if self.seen.load(Ordering::Relaxed) < asked {
                    tokio::time::sleep(LOOK).await;
                }
            }
            Ok::<(), sqlx::Error>(())
        });
        match waited.await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Problem::Behind { asked, applied: self.seen.load(Ordering::Relaxed) }),
        }
    }
}
