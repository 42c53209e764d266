//! Why an attempt to project ended, and what is said of it. A fault needs an operator: it is kept in the
//! database, and nobody says that he is active before he is past it.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Projector, Tasks};
use crate::{
    lane::Progress,
    lease::Lease,
    reader::{ReadError, Seen},
    store::{self, OpenError, SchemaError, WriteError},
};

/// To keep a fault may take so long: it delays the next attempt.
const KEPT: Duration = Duration::from_secs(1);
/// Whether the projection is past a fault is looked for this often.
const PAST: Duration = Duration::from_millis(50);

/// Why one attempt to project ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Schema(SchemaError),
    #[error("the lease was lost")]
    LeaseLost,
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("a task panicked")]
    Panicked,
    #[error("the lanes did not commit what they hold in time")]
    Hung,
    #[error("paused by an operator")]
    Paused,
}

impl Ended {
    /// For a fault, the sequence up to which everything is applied when the projection is past it.
    fn fault(&self, head: u64) -> Option<u64> {
        match self {
            Self::Write(WriteError::Systemic { to, .. }) => Some(*to),
            // Nobody knows whose data it was.
            Self::Write(WriteError::Permanent(_)) => Some(head),
            Self::Open(OpenError::Recreated { .. }) => Some(0),
            Self::Read(error) if error.is_fault() => Some(0),
            _ => None,
        }
    }

    fn cause(&self) -> String {
        self.source().map(ToString::to_string).unwrap_or_default()
    }
}

impl Projector {
    pub(super) fn report(&self, ended: &Ended) {
        let cause = ended.cause();
        if let Ended::Write(WriteError::FenceLost) | Ended::LeaseLost = ended {
            metrics::counter!("projector_fence_losses_total").increment(1);
        }
        match ended {
            Ended::Read(ReadError::NoStream) => {
                self.nats.down(ended.to_string());
                info!("waiting: {ended}");
            }
            Ended::Read(error) if error.is_fault() => {
                self.projection.down(ended.to_string());
                error!("fault: {ended}");
            }
            Ended::Schema(_) | Ended::Open(OpenError::Recreated { .. }) => {
                self.projection.down(ended.to_string());
                error!(cause, "fault: {ended}");
            }
            Ended::Read(_) => {
                self.nats.down(ended.to_string());
                warn!("projection interrupted: {ended}");
            }
            Ended::Postgres(_) | Ended::Open(_) | Ended::Write(WriteError::Transient(_)) => {
                self.postgres.down(ended.to_string());
                warn!(cause, "projection interrupted: {ended}");
            }
            Ended::Write(WriteError::Systemic { .. } | WriteError::Permanent(_)) => {
                self.projection.down(ended.to_string());
                error!(cause, "fault: {ended}");
            }
            Ended::Write(_) | Ended::LeaseLost | Ended::Panicked | Ended::Hung | Ended::Paused => {
                warn!(cause, "projection interrupted: {ended}");
            }
        }
    }

    /// Keeps a fault where `projector status` and the next projector find it.
    pub(super) async fn keep_fault(&self, ended: &Ended, lease: &Lease, seen: &Seen) {
        let Some(seq) = ended.fault(seen.last) else { return };
        let what = [ended.to_string(), ended.cause()].join(": ");
        let what = what.trim_end_matches(": ");
        let kept = timeout(KEPT, store::tell_fault(&self.pool, lease.fence, seq, what)).await;
        if !matches!(kept, Ok(Ok(()))) {
            warn!("the fault is only in this log: postgres did not take it");
        }
    }

    /// Ready is who works; after a fault, who is past it.
    pub(super) async fn say_active(
        &self,
        tasks: &mut Tasks,
        detail: String,
        head: u64,
        progress: &Arc<Progress>,
        halt: &CancellationToken,
    ) -> Result<(), Ended> {
        let Some(fault) = store::find_fault(&self.pool).await? else {
            self.projection.up(None, detail);
            return Ok(());
        };
        self.projection.down(fault.what);
        // The stream may be another one now, or have been restored from an older copy.
        let past = u64::try_from(fault.seq).unwrap_or(0).min(head);
        let (pool, projection) = (self.pool.clone(), self.projection.clone());
        let (progress, halt) = (Arc::clone(progress), halt.clone());
        tasks.spawn(async move {
            while progress.applied() < past {
                tokio::select! {
                    () = halt.cancelled() => return Ok(()),
                    () = sleep(PAST) => {}
                }
            }
            store::clear_fault(&pool).await?;
            info!(applied_seq = progress.applied(), "past the fault");
            projection.up(None, detail);
            halt.cancelled().await;
            Ok(())
        });
        Ok(())
    }
}
