//! What goes on beside a rebuild's work: its heartbeat, and a look at the live projection, which must
//! not suffer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{LIVE_LAG, RESTING, Rebuild, Rebuilder, Report, ledger};
use crate::{reader, refold::Pace, store::PROJECTION};

const EVERY: Duration = Duration::from_millis(500);
/// The rest after each chunk while the live projection is behind.
const REST: Duration = Duration::from_millis(25);

/// The longest rest before a piece of work that can't rest while it goes on: the making of an index, the
/// catch-up. Bounded, because a rebuild may be the cure for what keeps the live projection behind.
pub(super) const GIVE_WAY: Duration = Duration::from_secs(30);
/// The longest rest between two COPYs, within a transaction.
pub(super) const BETWEEN_COPIES: Duration = Duration::from_secs(1);

/// What the keeper's task and the work tell each other.
struct Shared {
    read: AtomicU64,
    slow: AtomicBool,
    lost: CancellationToken,
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    report: Report,
    from: u64,
    target: u64,
    live: sqlx::PgPool,
    rebuild: Rebuild,
    task: AbortOnDropHandle<()>,
}

impl Keeper {
    pub(super) async fn start(tool: &Rebuilder, rebuild: &Rebuild) -> Self {
        let shared = Arc::new(Shared {
            read: AtomicU64::new(u64::try_from(rebuild.read_seq).unwrap_or(0)),
            slow: AtomicBool::new(is_behind(&tool.live, &tool.stream).await),
            lost: CancellationToken::new(),
        });
        let (live, stream, known) = (tool.live.clone(), tool.stream.clone(), rebuild.clone());
        let told = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            loop {
                sleep(EVERY).await;
                match ledger::beat(&live, &known, told.read.load(Ordering::Relaxed)).await {
                    Ok(true) => {}
                    Ok(false) => return told.lost.cancel(),
                    // The row outlives Postgres' absence; the work notices by itself.
                    Err(error) => tracing::warn!(%error, "no heartbeat"),
                }
                told.slow.store(is_behind(&live, &stream).await, Ordering::Relaxed);
            }
        });
        Self {
            shared,
            report: Arc::clone(&tool.report),
            from: u64::try_from(rebuild.from_seq).unwrap_or(0),
            target: u64::try_from(rebuild.target_seq).unwrap_or(0),
            live: tool.live.clone(),
            rebuild: rebuild.clone(),
            task: AbortOnDropHandle::new(task),
        }
    }

    /// Does the work while this process is the worker; then others may take over at once.
    pub(super) async fn unless_lost<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = self.shared.lost.cancelled() => {
                bail!("this rebuild was aborted or taken over by another process");
            }
        };
        self.task.abort();
        if let Err(error) = ledger::leave(&self.live, &self.rebuild).await {
            tracing::warn!(%error, "others wait until this process counts as silent");
        }
        outcome
    }
}

impl Keeper {
    /// Rests while the live projection is behind, at most this long.
    pub(super) async fn give_way(&self, longest: Duration) {
        let began = Instant::now();
        while self.shared.slow.load(Ordering::Relaxed) && began.elapsed() < longest {
            (self.report)(RESTING, began.elapsed().as_secs(), longest.as_secs());
            sleep(REST).await;
        }
    }
}

impl Pace for Keeper {
    fn at(&self, seq: u64) {
        self.shared.read.store(seq, Ordering::Relaxed);
        (self.report)(
            "folding",
            (seq + 1).saturating_sub(self.from),
            (self.target + 1).saturating_sub(self.from),
        );
    }

    fn rest(&self) -> Duration {
        if self.shared.slow.load(Ordering::Relaxed) { REST } else { Duration::ZERO }
    }
}

async fn is_behind(live: &sqlx::PgPool, stream: &async_nats::jetstream::stream::Stream) -> bool {
    let lag = timeout(EVERY, lag(live, stream)).await;
    lag.is_ok_and(|lag| lag.is_some_and(|lag| lag > LIVE_LAG))
}

/// How far a projector that is alive is behind the stream; none if there is none.
async fn lag(live: &sqlx::PgPool, stream: &async_nats::jetstream::stream::Stream) -> Option<u64> {
    let applied: Option<i64> = sqlx::query_scalar(
        "select (select min(seq) from checkpoint where projection = $1)
         from projection_lease where projection = $1 and expires_at > now()",
    )
    .bind(PROJECTION)
    .fetch_optional(live)
    .await
    .ok()?;
    let head = reader::look(stream).await.ok()?.last;
    Some(head.saturating_sub(u64::try_from(applied?).ok()?))
}
