//! Where the projection stands, and moving it by hand: only while nobody projects, only from where the
//! operator believes it to be, and under a new fence.

use anyhow::{Result, bail, ensure};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use super::Tools;
use crate::{
    reader::Seen,
    store::{self, PROJECTION, signed},
};

#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct LanePosition {
    pub lane: i32,
    pub seq: i64,
    pub fence: i64,
    pub updated_at: DateTime<Utc>,
    #[serde(skip)]
    pub stream_created_at: DateTime<Utc>,
}

/// The position, lane by lane.
#[derive(Debug, Clone, Serialize)]
pub struct Checkpoint {
    pub applied_seq: i64,
    pub stream_created_at: Option<DateTime<Utc>>,
    pub lanes: Vec<LanePosition>,
}

pub async fn show(pool: &PgPool) -> Result<Checkpoint, sqlx::Error> {
    let lanes: Vec<LanePosition> = sqlx::query_as(
        "select lane, seq, fence, updated_at, stream_created_at from checkpoint
         where projection = $1 order by lane",
    )
    .bind(PROJECTION)
    .fetch_all(pool)
    .await?;
    Ok(Checkpoint {
        applied_seq: lanes.iter().map(|lane| lane.seq).min().unwrap_or(0),
        stream_created_at: lanes.first().map(|lane| lane.stream_created_at),
        lanes,
    })
}

/// What an operator wants.
#[derive(Debug, Clone, Copy)]
pub struct Move {
    /// Everything up to here counts as applied afterwards.
    pub to: u64,
    /// Where the operator believes the projection to be.
    pub expect: u64,
    /// The stream was recreated, and this is meant.
    pub adopt_stream: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct Moved {
    pub from_seq: i64,
    pub to_seq: u64,
    /// Events that are applied once more, which changes nothing, …
    pub again: u64,
    /// … or that never will be.
    pub skipped: u64,
    pub fence: i64,
    pub stream_adopted: bool,
}

/// What the move would do, or why it can't be.
pub async fn plan(tools: &Tools, wanted: Move) -> Result<Moved> {
    let (_, seen) = tools.stream().await?;
    let now = show(&tools.pool).await?;
    ensure!(!now.lanes.is_empty(), "nothing was ever projected: there is no position to move");
    check(&now, &seen, wanted)?;
    let from = u64::try_from(now.applied_seq).unwrap_or(0);
    Ok(Moved {
        from_seq: now.applied_seq,
        to_seq: wanted.to,
        again: from.saturating_sub(wanted.to),
        skipped: wanted.to.saturating_sub(from),
        fence: now.lanes.iter().map(|lane| lane.fence).max().unwrap_or(0) + 1,
        stream_adopted: wanted.adopt_stream
            && now.stream_created_at != Some(seen.identity.created_at),
    })
}

fn check(now: &Checkpoint, seen: &Seen, wanted: Move) -> Result<()> {
    ensure!(
        now.applied_seq == signed(wanted.expect),
        "the position is {}, not {}: nothing was changed",
        now.applied_seq,
        wanted.expect
    );
    seen.check(wanted.to)?;
    if now.stream_created_at != Some(seen.identity.created_at) && !wanted.adopt_stream {
        bail!(
            "the stream {} was recreated at {}: its sequences mean other events. \
             --adopt-stream goes on with it all the same",
            seen.identity.name,
            seen.identity.created_at
        );
    }
    Ok(())
}

/// Moves it.
pub async fn set(tools: &Tools, wanted: Move) -> Result<Moved> {
    let (_, seen) = tools.stream().await?;
    let planned = plan(tools, wanted).await?;
    let mut tx = store::begin(&tools.pool).await?;
    // The lease's row is locked first: nobody takes it before the commit.
    let fence: Option<(i64, bool)> = sqlx::query_as(
        "select fence, expires_at > now() from projection_lease where projection = $1 for update",
    )
    .bind(PROJECTION)
    .fetch_optional(&mut *tx)
    .await?;
    let Some((fence, alive)) = fence else { bail!("no projector ever ran here") };
    ensure!(
        !alive,
        "a projector owns the projection and would go on from where it is: `projector pause` first"
    );
    let fence = fence + 1;
    sqlx::query("update projection_lease set fence = $2 where projection = $1")
        .bind(PROJECTION)
        .bind(fence)
        .execute(&mut *tx)
        .await?;
    let applied: Option<i64> =
        sqlx::query_scalar("select min(seq) from checkpoint where projection = $1")
            .bind(PROJECTION)
            .fetch_one(&mut *tx)
            .await?;
    ensure!(applied == Some(planned.from_seq), "the position has moved: nothing was changed");
    sqlx::query(
        "update checkpoint set seq = $2, fence = $3, stream_created_at = $4, updated_at = now()
         where projection = $1",
    )
    .bind(PROJECTION)
    .bind(signed(wanted.to))
    .bind(fence)
    .bind(seen.identity.created_at)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Moved { fence, ..planned })
}
