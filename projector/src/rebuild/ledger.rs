//! The rebuild's row: what it is about, how far it is, who works on it. One rebuild at a time is the
//! database's word, and one process on it is the word of `attempt`, which each takeover raises.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use crate::{reader::Seen, store::signed};

/// A process that was not heard of for this long may be taken over from. Seconds.
const SILENT: f64 = 10.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Phase {
    Folding,
    Indexing,
    Checking,
    CatchingUp,
    Ready,
    Swapped,
    RolledBack,
    Aborted,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Folding => "folding the stream",
            Self::Indexing => "making indexes",
            Self::Checking => "checking the new tables",
            Self::CatchingUp => "catching up",
            Self::Ready => "ready to swap",
            Self::Swapped => "swapped in",
            Self::RolledBack => "rolled back",
            Self::Aborted => "aborted",
        })
    }
}

#[derive(Debug, Clone, FromRow)]
pub struct Rebuild {
    pub id: i64,
    pub phase: Phase,
    pub attempt: i64,
    worker: String,
    pub heartbeat_at: DateTime<Utc>,
    pub started_by: String,
    pub started_at: DateTime<Utc>,
    pub phase_at: DateTime<Utc>,
    pub stream_created_at: DateTime<Utc>,
    pub from_seq: i64,
    pub target_seq: i64,
    pub read_seq: i64,
    pub passes: i32,
    pub next_bucket: i32,
    pub leads: i64,
    pub checksum: i64,
    pub peak_memory_bytes: i64,
    pub mapping_hash: String,
    pub schema_version: i64,
    pub swapped_at: Option<DateTime<Utc>>,
    pub swapped_seq: Option<i64>,
    pub swap_lock_ms: Option<f64>,
    pub swap_tries: Option<i32>,
}

const ACTIVE: &str = "select * from rebuild
    where phase in ('folding', 'indexing', 'checking', 'catching_up', 'ready')";

/// The rebuild that is going on.
pub(super) async fn active(pool: &PgPool) -> Result<Option<Rebuild>, sqlx::Error> {
    sqlx::query_as(ACTIVE).fetch_optional(pool).await
}

pub(super) async fn last(pool: &PgPool) -> Result<Option<Rebuild>, sqlx::Error> {
    sqlx::query_as("select * from rebuild order by id desc limit 1").fetch_optional(pool).await
}

/// The rebuild whose tables, or whose archive, are in place.
pub(super) async fn last_swapped(pool: &PgPool) -> Result<Option<Rebuild>, sqlx::Error> {
    let query =
        "select * from rebuild where phase in ('swapped', 'rolled_back') order by id desc limit 1";
    sqlx::query_as(query).fetch_optional(pool).await
}

/// The last migration that the tables have seen.
pub(super) async fn schema_version(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("select max(version) from _sqlx_migrations").fetch_one(pool).await
}

/// Begins a rebuild. The tables of one that was aborted in the middle are dropped before.
pub(super) async fn begin(
    pool: &PgPool,
    seen: &Seen,
    mapping_hash: &str,
    who: &str,
) -> Result<Rebuild> {
    let version = schema_version(pool).await?;
    let begun = sqlx::query_as(
        "insert into rebuild (phase, worker, started_by, stream, stream_created_at, from_seq, target_seq,
             mapping_hash, schema_version)
         values ('folding', $1, $2, $3, $4, $5, $6, $7, $8)
         on conflict do nothing returning *",
    )
    .bind(Uuid::new_v4().to_string())
    .bind(who)
    .bind(&seen.identity.name)
    .bind(seen.identity.created_at)
    .bind(signed(seen.first.max(1)))
    .bind(signed(seen.last))
    .bind(mapping_hash)
    .bind(version)
    .fetch_optional(pool)
    .await?;
    match begun {
        Some(rebuild) => Ok(rebuild),
        None => bail!("another rebuild has just begun: `projector rebuild status` tells whose"),
    }
}

/// Makes this process the worker, if the former one is silent or nothing is being worked on.
pub(super) async fn take_over(pool: &PgPool, known: &Rebuild, who: &str) -> Result<Rebuild> {
    let taken = sqlx::query_as(
        "update rebuild set attempt = attempt + 1, worker = $3, heartbeat_at = now()
         where id = $1 and attempt = $2 and heartbeat_at < now() - make_interval(secs => $4)
         returning *",
    )
    .bind(known.id)
    .bind(known.attempt)
    .bind(Uuid::new_v4().to_string())
    .bind(SILENT)
    .fetch_optional(pool)
    .await?;
    match taken {
        Some(rebuild) => Ok(rebuild),
        None => bail!(
            "rebuild {} of {} is {} and its process was heard of at {}: wait for it, or `projector rebuild abort` \
             ends it ({who} was told no)",
            known.id,
            known.started_by,
            known.phase,
            known.heartbeat_at.format("%H:%M:%S")
        ),
    }
}

/// Says that this process is alive and how far it is; false if it is not the worker any more.
pub(super) async fn beat(pool: &PgPool, rebuild: &Rebuild, read: u64) -> Result<bool, sqlx::Error> {
    let mine = sqlx::query(
        "update rebuild set heartbeat_at = now(), read_seq = $4
         where id = $1 and attempt = $2 and worker = $3 and phase <> 'aborted'",
    )
    .bind(rebuild.id)
    .bind(rebuild.attempt)
    .bind(&rebuild.worker)
    .bind(signed(read))
    .execute(pool)
    .await?;
    Ok(mine.rows_affected() == 1)
}

/// The process ends: another one need not wait until it counts as silent.
pub(super) async fn leave(pool: &PgPool, rebuild: &Rebuild) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update rebuild set heartbeat_at = now() - make_interval(secs => $4)
         where id = $1 and attempt = $2 and worker = $3",
    )
    .bind(rebuild.id)
    .bind(rebuild.attempt)
    .bind(&rebuild.worker)
    .bind(SILENT + 1.0)
    .execute(pool)
    .await?;
    Ok(())
}

/// Begins a transaction that writes: only while this process is the worker. The lock lets heartbeats
/// pass; whatever counts for the record is written with the attempt once more.
pub(super) async fn hold(connection: &mut PgConnection, rebuild: &Rebuild) -> Result<()> {
    let mine: Option<(i64,)> = sqlx::query_as(
        "select id from rebuild where id = $1 and attempt = $2 and phase <> 'aborted' for key share",
    )
    .bind(rebuild.id)
    .bind(rebuild.attempt)
    .fetch_optional(connection)
    .await?;
    if mine.is_none() {
        bail!("another process works on this rebuild now, or it was aborted");
    }
    Ok(())
}

/// What one pass of the fold has put into the shadow table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Copied {
    pub(super) next_bucket: u64,
    pub(super) leads: usize,
    pub(super) checksum: i64,
    pub(super) peak_bytes: usize,
}

/// Records a pass in the transaction that wrote its rows.
pub(super) async fn copied(
    connection: &mut PgConnection,
    rebuild: &Rebuild,
    copied: Copied,
) -> Result<Rebuild, sqlx::Error> {
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query_as(
        "update rebuild set next_bucket = $2, passes = passes + 1, leads = leads + $3, checksum = $4,
             peak_memory_bytes = greatest(peak_memory_bytes, $5)
         where id = $1 and attempt = $6 returning *",
    )
    .bind(rebuild.id)
    .bind(i32::try_from(copied.next_bucket).unwrap_or(i32::MAX))
    .bind(number(copied.leads))
    .bind(rebuild.checksum.wrapping_add(copied.checksum))
    .bind(number(copied.peak_bytes))
    .bind(rebuild.attempt)
    .fetch_one(connection)
    .await
}

/// Goes on to the next phase.
pub(super) async fn enter(pool: &PgPool, rebuild: &mut Rebuild, phase: Phase) -> Result<()> {
    let entered = sqlx::query_as(
        "update rebuild set phase = $3, phase_at = now()
         where id = $1 and attempt = $2 and phase <> 'aborted' returning *",
    )
    .bind(rebuild.id)
    .bind(rebuild.attempt)
    .bind(phase)
    .fetch_optional(pool)
    .await?;
    match entered {
        Some(entered) => {
            *rebuild = entered;
            Ok(())
        }
        None => bail!("another process works on this rebuild now, or it was aborted"),
    }
}

/// Ends a rebuild whoever works on it; its process finds out by its next heartbeat.
pub(super) async fn abort(pool: &PgPool, rebuild: &mut Rebuild) -> Result<()> {
    let aborted = sqlx::query_as(
        "update rebuild set phase = 'aborted', phase_at = now(), attempt = attempt + 1
         where id = $1 and phase in ('folding', 'indexing', 'checking', 'catching_up', 'ready')
         returning *",
    )
    .bind(rebuild.id)
    .fetch_optional(pool)
    .await?;
    // A swap may have been quicker.
    *rebuild =
        aborted.context("the rebuild has ended meanwhile: see `projector rebuild status`")?;
    Ok(())
}
