//! New tables take the place of the live ones in one transaction, at one position of the stream.
//!
//! The live projection is held at its positions by their row locks, the new tables catch up with the
//! highest of them, and only then the tables are locked for readers, for the milliseconds that it
//! takes to move six names. The transaction raises the fence: the projector ends its attempt, drops
//! what it has in memory and begins again on the new tables.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool, Row};
use tokio::time::{sleep, timeout};

use super::{
    Rebuild, Rebuilder,
    catch_up::CatchUp,
    ledger,
    shadow::{self, ARCHIVE, OUTGOING, SHADOW, SWAPPED},
};
use crate::{
    reader,
    store::{self, AGENTS, PROJECTION, RETURNED, SKIPPED, signed},
    version::{self, Topic},
};

/// The swap waits for readers at most this long, and others behind it; then it steps back and tries again.
const LOCK: &str = "30ms";
/// The lanes may take this long to end a commit, and the new tables to catch up with them.
const HOLD: &str = "1s";
const HELD: Duration = Duration::from_millis(1500);
/// An autovacuum gives way after Postgres' `deadlock_timeout`.
const VACUUM: &str = "5s";
/// Tries before an operator is asked, and the pause between two: longer than an export of `query-api` may hold its
/// snapshot, which is a minute.
const TRIES: i32 = 300;
const PAUSE: Duration = Duration::from_millis(200);

/// What a swap did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Swapped {
    /// The new tables have everything up to here.
    pub seq: u64,
    /// How long a reader was held up at most, the wait for others' locks included, and how many tries it took.
    pub lock: Duration,
    pub tries: i32,
    /// Letters that were skipped after the new tables had taken their events; only a rollback goes on with such.
    pub skipped_since: i64,
}

/// The swap's own way to fail that another try mends: somebody held a lock for too long.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("a lock was not to be had in time")]
    Busy,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code().map(|c| c.into_owned()));
        // lock_not_available, deadlock_detected
        if matches!(code.as_deref(), Some("55P03" | "40P01")) {
            Self::Busy
        } else {
            Self::Other(error.into())
        }
    }
}

/// Swaps the tables of a schema in: the shadow's, or the archive's for a rollback.
pub(super) async fn swap(tool: &Rebuilder, rebuild: &Rebuild, incoming: &str) -> Result<Swapped> {
    ensure!(
        shadow::fits(&tool.live, incoming).await?,
        "the schema was migrated since these tables were made: they can't take the place of the live ones"
    );
    let pool = store::pool_in(&tool.config.postgres, incoming)?;
    // Tables of another mapping must not get rows of today's.
    let same = incoming == SHADOW || store::previous_mapping(&pool).await? == tool.mapping.hash();
    for tries in 1..=TRIES {
        let mut catching = None;
        if same {
            shadow::leave_out(&mut *pool.acquire().await?, incoming).await?;
            let mut started = tool.catch_up(&pool, fence(&pool, rebuild).await?).await?;
            let head = reader::look(&tool.stream).await?.last;
            tool.settle(&mut started, head).await?;
            catching = Some(started);
        }
        crash_point!("rebuild-swap");
        match attempt(tool, rebuild, incoming, catching).await {
            Ok(swapped) => {
                let swapped = Swapped { tries, ..swapped };
                crash_point!("rebuild-swapped");
                record(&tool.live, rebuild, swapped).await?;
                shadow::drop(&tool.live, SHADOW).await?;
                return Ok(swapped);
            }
            Err(Failed::Busy) => {
                (tool.report)("waiting for a lock", u64::try_from(tries)?, u64::try_from(TRIES)?);
                sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
            }
            Err(Failed::Other(error)) => return Err(error),
        }
    }
    bail!(
        "readers held their locks through {TRIES} tries: nothing was changed, try again when it is quieter"
    )
}

/// A fence above all that the incoming tables have seen: a former worker writes nothing any more.
async fn fence(pool: &PgPool, rebuild: &Rebuild) -> Result<i64> {
    let known: i64 = sqlx::query_scalar("select coalesce(max(fence), 0) from checkpoint")
        .fetch_one(pool)
        .await?;
    Ok(known.max(rebuild.attempt) + 1)
}

/// One try. Whatever goes wrong, nothing was changed.
async fn attempt(
    tool: &Rebuilder,
    rebuild: &Rebuild,
    incoming: &str,
    catching: Option<CatchUp>,
) -> Result<Swapped, Failed> {
    let mut connection = tool.live.acquire().await?;
    connection.execute(AssertSqlSafe(shadow::beside(OUTGOING))).await?;
    if incoming == ARCHIVE {
        shadow::drop(&tool.live, SHADOW).await?;
    }
    let mut tx = connection.begin().await?;
    ledger::hold(&mut tx, rebuild).await?;
    tx.execute(AssertSqlSafe(lock(VACUUM, "share update exclusive"))).await?;
    let target = hold_the_lanes(&mut tx, tool).await?;
    let seq = match catching {
        Some(catching) => catch_up_to(catching, target).await?,
        None => shadow::position(&mut tx, incoming).await?,
    };
    let skipped_since = shadow::skipped_since(&mut tx, incoming, seq).await?;
    if incoming == SHADOW && skipped_since > 0 {
        let refusal = anyhow!(
            "{skipped_since} letters were skipped after the new tables had taken their events: \
             `projector rebuild abort`, and start again"
        );
        return Err(refusal.into());
    }
    prepare(&mut tx, incoming).await?;
    take_position(&mut tx, tool, rebuild, seq, incoming).await?;
    crash_point!("rebuild-swap-locked");
    // From here on a reader may be held up, behind this one's wait or behind its lock. All else is done.
    let locked = Instant::now();
    tx.execute(AssertSqlSafe(moves(incoming))).await?;
    crash_point!("rebuild-swap-commit");
    tx.commit().await?;
    Ok(Swapped { seq, lock: locked.elapsed(), tries: 0, skipped_since })
}

/// The last events, while the live projection is held.
async fn catch_up_to(mut catching: CatchUp, target: u64) -> Result<u64, Failed> {
    let catch_up = async {
        while !catching.has(target).await? {
            sleep(Duration::from_millis(2)).await;
        }
        catching.stop().await
    };
    Ok(timeout(HELD, catch_up).await.map_err(|_| Failed::Busy)??)
}

/// Statements that lock the live tables, or give up in time.
fn lock(patience: &str, mode: &str) -> String {
    let tables = SWAPPED.map(|table| format!("public.{table}")).join(", ");
    format!("set local lock_timeout = '{patience}'; lock table {tables} in {mode} mode;")
}

/// Keeps worker and lanes from committing. Gives the position that readers have seen: the new tables
/// must not be behind it, unless it is of another stream.
async fn hold_the_lanes(
    connection: &mut PgConnection,
    tool: &Rebuilder,
) -> Result<u64, sqlx::Error> {
    connection.execute(AssertSqlSafe(format!("set local lock_timeout = '{HOLD}'"))).await?;
    let mut target = 0;
    for projection in [AGENTS, PROJECTION] {
        let rows = sqlx::query(
            "select seq, stream_created_at from public.checkpoint where projection = $1 order by lane for update",
        )
        .bind(projection)
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            let created_at: chrono::DateTime<chrono::Utc> = row.try_get(1)?;
            if created_at == tool.seen.identity.created_at {
                target = target.max(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0));
            }
        }
    }
    Ok(target)
}

/// What can be done before readers are held up: the dead letters, and what is remembered of the
/// outgoing tables for a rollback.
async fn prepare(connection: &mut PgConnection, incoming: &str) -> Result<(), sqlx::Error> {
    let stream = format!(
        "(select min(stream_created_at) from {incoming}.checkpoint where projection = '{PROJECTION}')"
    );
    let sql = format!(
        "insert into {OUTGOING}.checkpoint select * from public.checkpoint;
         insert into {OUTGOING}.agent_dirty overriding system value select * from public.agent_dirty;
         insert into {OUTGOING}.dead_letter select * from public.dead_letter
         where resolved_at is null or starts_with(resolution, '{SKIPPED}');
         update public.dead_letter set resolved_at = now(), resolution = 'rebuilt', retry_requested_at = null
         where resolved_at is null and stream_created_at = {stream} and not exists (
             select from {incoming}.dead_letter waiting
             where waiting.projection = dead_letter.projection and waiting.seq = dead_letter.seq
               and waiting.stream_created_at = dead_letter.stream_created_at and waiting.resolved_at is null);
         update public.dead_letter waiting
         set resolved_at = now(), resolution = returned.resolution, retry_requested_at = null
         from {incoming}.dead_letter returned
         where waiting.resolved_at is null and returned.resolution = '{RETURNED}'
           and waiting.projection = returned.projection and waiting.seq = returned.seq
           and waiting.stream_created_at = returned.stream_created_at;
         insert into public.dead_letter select * from {incoming}.dead_letter
         where resolved_at is null and stream_created_at = {stream}
         on conflict (projection, stream_created_at, seq) do update
             set reason = excluded.reason, resolved_at = null, resolution = null
             where dead_letter.resolution is null or not starts_with(dead_letter.resolution, '{SKIPPED}');
         delete from public.agent_dirty;
         insert into public.agent_dirty (org_id, agent_id, seq)
         select org_id, agent_id, seq from {incoming}.agent_dirty;"
    );
    connection.execute(AssertSqlSafe(sql)).await?;
    for table in SWAPPED {
        let vacuum = format!("alter table {incoming}.{table} reset (autovacuum_enabled)");
        connection.execute(AssertSqlSafe(vacuum)).await?;
    }
    Ok(())
}

/// Names move, rows do not: readers are locked out, the live tables go out, the new ones in, the schemas to their
/// places. One round trip.
fn moves(incoming: &str) -> String {
    let mut sql = lock(LOCK, "access exclusive");
    for table in SWAPPED {
        sql.push_str(&format!("alter table public.{table} set schema {OUTGOING};"));
        sql.push_str(&format!("alter table {incoming}.{table} set schema public;"));
    }
    if incoming == ARCHIVE {
        // Its place is needed; what is left in it goes after the commit.
        sql.push_str(&format!("alter schema {ARCHIVE} rename to {SHADOW};"));
    }
    sql.push_str(&format!("alter schema {OUTGOING} rename to {ARCHIVE};"));
    sql
}

/// The position, the fence, the mapping and the versions of the new tables.
async fn take_position(
    connection: &mut PgConnection,
    tool: &Rebuilder,
    rebuild: &Rebuild,
    seq: u64,
    incoming: &str,
) -> Result<(), Failed> {
    let identity = &tool.seen.identity;
    let (fence,): (i64,) = sqlx::query_as(
        "insert into projection_lease (projection, owner, fence, expires_at) values ($1, 'rebuild', 1, now())
         on conflict (projection) do update set
             owner = excluded.owner, fence = projection_lease.fence + 1, expires_at = now()
         returning fence",
    )
    .bind(PROJECTION)
    .fetch_one(&mut *connection)
    .await?;
    // The rows stay: an operator's repair that waits for them goes on with what they say then.
    sqlx::query(
        "with moved as (
             update public.checkpoint set stream = $3, stream_created_at = $4, fence = $6, updated_at = now(),
                 seq = case projection when $1 then $5 else 0 end
             where projection in ($1, $2) returning projection)
         insert into public.checkpoint (projection, lane, stream, stream_created_at, seq, fence)
         select name, 0, $3, $4, case name when $1 then $5 else 0 end, $6
         from unnest(array[$1, $2]) as told (name)
         where name not in (select projection from moved)",
    )
    .bind(PROJECTION)
    .bind(AGENTS)
    .bind(&identity.name)
    .bind(identity.created_at)
    .bind(signed(seq))
    .bind(fence)
    .execute(&mut *connection)
    .await?;
    store::swap_mapping(connection, &rebuild.mapping_hash, incoming == SHADOW).await?;
    let orgs: Vec<String> = sqlx::query_scalar("select org_id from org_version order by org_id")
        .fetch_all(&mut *connection)
        .await?;
    let everything = orgs.into_iter().map(|org| (org, Topic::Leads));
    version::raise(&mut *connection, everything).await?;
    let phase = if incoming == SHADOW { "swapped" } else { "rolled_back" };
    let entered = sqlx::query(
        "update rebuild set phase = $3, phase_at = now(), swapped_at = now(), swapped_seq = $4
         where id = $1 and attempt = $2 and phase <> 'aborted'",
    )
    .bind(rebuild.id)
    .bind(rebuild.attempt)
    .bind(phase)
    .bind(signed(seq))
    .execute(connection)
    .await?;
    if entered.rows_affected() == 1 {
        Ok(())
    } else {
        Err(anyhow!("another process works on this rebuild now, or it was aborted").into())
    }
}

/// The measured lock, for who asks later; the swap itself is done.
async fn record(pool: &PgPool, rebuild: &Rebuild, swapped: Swapped) -> Result<()> {
    sqlx::query("update rebuild set swap_lock_ms = $2, swap_tries = $3 where id = $1")
        .bind(rebuild.id)
        .bind(swapped.lock.as_secs_f64() * 1000.0)
        .bind(swapped.tries)
        .execute(pool)
        .await
        .context("swapped; only its duration was not recorded")?;
    Ok(())
}
