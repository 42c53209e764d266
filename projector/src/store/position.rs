//! Where the lanes stand. A position moves only from where its lane left it, and only under the
//! fence of the present owner: a second writer is harmless.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{AGENTS, PROJECTION, WriteError, leads::signed};

/// The positions of all lanes, and the stream that they are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub lanes: Vec<u64>,
}

impl Position {
    /// All lanes have everything up to here.
    pub fn applied(&self) -> u64 {
        self.lanes.iter().copied().min().unwrap_or(0)
    }

    /// No lane has anything after this.
    pub fn farthest(&self) -> u64 {
        self.lanes.iter().copied().max().unwrap_or(0)
    }

    /// Where the lane of this bucket stands.
    pub fn of_bucket(&self, bucket: u64) -> u64 {
        let lanes = u64::try_from(self.lanes.len()).unwrap_or(1).max(1);
        let lane = usize::try_from(bucket % lanes).unwrap_or(0);
        self.lanes.get(lane).copied().unwrap_or(0)
    }
}

/// The stream that a position belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamIdentity {
    pub name: String,
    pub created_at: DateTime<Utc>,
}

/// What can be wrong between the position and the stream; each needs an operator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "the stream {name} was recreated at {now} (the read models are from the one of {known}): \
         rebuild the projection, or restore the stream"
    )]
    Recreated { name: String, known: DateTime<Utc>, now: DateTime<Utc> },
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// Takes over the lanes' positions under a new fence. Where the number of lanes changed, all begin at
/// the lowest old position: applying an event again changes nothing (`fold`).
pub async fn open_positions(
    pool: &PgPool,
    stream: &StreamIdentity,
    lanes: u32,
    fence: i64,
) -> Result<Position, OpenError> {
    let mut tx = super::begin(pool).await?;
    let rows: Vec<(i32, DateTime<Utc>, i64)> = sqlx::query_as(
        "select lane, stream_created_at, seq from checkpoint where projection = $1 order by lane for update",
    )
    .bind(PROJECTION)
    .fetch_all(&mut *tx)
    .await?;
    if let Some((_, known, _)) = rows.iter().find(|row| row.1 != stream.created_at) {
        let (known, now) = (*known, stream.created_at);
        return Err(OpenError::Recreated { name: stream.name.clone(), known, now });
    }
    let old: Vec<i64> = rows.iter().map(|row| row.2).collect();
    let wanted = usize::try_from(lanes).unwrap_or(1);
    let positions = if old.len() == wanted {
        old
    } else {
        vec![old.iter().copied().min().unwrap_or(0); wanted]
    };
    sqlx::query("delete from checkpoint where projection in ($1, $2)")
        .bind(PROJECTION)
        .bind(AGENTS)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "insert into checkpoint (projection, lane, stream, stream_created_at, seq, fence)
         select $1, lane - 1, $3, $4, seq, $5
         from unnest($6::bigint[]) with ordinality as position (seq, lane)
         union all select $2, 0, $3, $4, 0, $5",
    )
    .bind(PROJECTION)
    .bind(AGENTS)
    .bind(&stream.name)
    .bind(stream.created_at)
    .bind(fence)
    .bind(&positions)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    let lanes = positions.into_iter().map(|seq| u64::try_from(seq).unwrap_or(0)).collect();
    Ok(Position { lanes })
}

/// Moves a lane's position within the caller's transaction, and locks it until the commit. Not after a
/// repair from outside: a lane begins with fresh positions, which know of none.
pub async fn advance(
    connection: &mut PgConnection,
    lane: u32,
    from: u64,
    to: u64,
    fence: i64,
) -> Result<(), WriteError> {
    let lane = i32::try_from(lane).unwrap_or(i32::MAX);
    let moved = sqlx::query(
        "update checkpoint set seq = $4, updated_at = now()
         where projection = $1 and lane = $2 and seq = $3 and fence = $5 and repairs = 0",
    )
    .bind(PROJECTION)
    .bind(lane)
    .bind(signed(from))
    .bind(signed(to))
    .bind(fence)
    .execute(&mut *connection)
    .await?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let repaired: Option<bool> = sqlx::query_scalar(
        "select repairs > 0 from checkpoint where projection = $1 and lane = $2 and seq = $3 and fence = $4",
    )
    .bind(PROJECTION)
    .bind(lane)
    .bind(signed(from))
    .bind(fence)
    .fetch_optional(connection)
    .await?;
    match repaired {
        Some(true) => Err(WriteError::Repaired),
        Some(false) | None => Err(WriteError::FenceLost),
    }
}

/// Keeps the lanes from committing until the end of the caller's transaction, and makes them forget what
/// they remember afterwards. Gives what is applied, lane by lane.
pub async fn hold_lanes(
    connection: &mut PgConnection,
    stream: &StreamIdentity,
) -> Result<Position, OpenError> {
    loop {
        let held = sqlx::query("update checkpoint set repairs = repairs + 1 where projection = $1")
            .bind(PROJECTION)
            .execute(&mut *connection)
            .await?;
        let position = positions(connection, stream).await?;
        // A projector that started while this one waited has made the rows anew.
        if usize::try_from(held.rows_affected()) == Ok(position.lanes.len()) {
            return Ok(position);
        }
    }
}

/// Where the lanes stand, if it is in this stream.
pub async fn positions(
    connection: &mut PgConnection,
    stream: &StreamIdentity,
) -> Result<Position, OpenError> {
    let rows: Vec<(DateTime<Utc>, i64)> = sqlx::query_as(
        "select stream_created_at, seq from checkpoint where projection = $1 order by lane",
    )
    .bind(PROJECTION)
    .fetch_all(connection)
    .await?;
    if let Some((known, _)) = rows.iter().find(|row| row.0 != stream.created_at) {
        let (known, now) = (*known, stream.created_at);
        return Err(OpenError::Recreated { name: stream.name.clone(), known, now });
    }
    let lanes = rows.into_iter().map(|row| u64::try_from(row.1).unwrap_or(0)).collect();
    Ok(Position { lanes })
}

/// The mapping that the read models were made with. The first projector says which.
pub async fn mapping_of_tables(pool: &PgPool, own: &str) -> Result<String, sqlx::Error> {
    sqlx::query(
        "insert into projection_mapping (projection, hash) values ($1, $2)
         on conflict (projection) do nothing",
    )
    .bind(PROJECTION)
    .bind(own)
    .execute(pool)
    .await?;
    known_mapping(pool).await?.ok_or(sqlx::Error::RowNotFound)
}

/// The same for those who only ask: none before the first projector has said it.
pub async fn known_mapping(
    executor: impl sqlx::PgExecutor<'_>,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("select hash from projection_mapping where projection = $1")
        .bind(PROJECTION)
        .fetch_optional(executor)
        .await
}

/// A swap's tables bring their mapping along: the rebuilt one, or the one before it. The other one is
/// remembered for the way back.
pub(crate) async fn swap_mapping(
    connection: &mut PgConnection,
    rebuilt: &str,
    forth: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into projection_mapping (projection, hash) values ($1, $2)
         on conflict (projection) do update set
             hash = case when $3 then excluded.hash else coalesce(projection_mapping.previous, excluded.hash) end,
             previous = projection_mapping.hash, since = now()",
    )
    .bind(PROJECTION)
    .bind(rebuilt)
    .bind(forth)
    .execute(connection)
    .await?;
    Ok(())
}

/// The mapping of the tables that the last swap took out.
pub(crate) async fn previous_mapping(pool: &PgPool) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(previous, hash) from projection_mapping where projection = $1",
    )
    .bind(PROJECTION)
    .fetch_one(pool)
    .await
}
