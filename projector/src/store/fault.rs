//! Why the projection stands still although a projector runs: for `projector status`, and for the next
//! projector, which is not ready before it is past it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

use super::{PROJECTION, signed};

#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct Fault {
    pub since: DateTime<Utc>,
    /// The projection is past it when it has everything up to here.
    pub seq: i64,
    pub what: String,
}

pub async fn find_fault(pool: &PgPool) -> Result<Option<Fault>, sqlx::Error> {
    sqlx::query_as("select since, seq, what from projection_fault where projection = $1")
        .bind(PROJECTION)
        .fetch_optional(pool)
        .await
}

/// Written by the owner of the lease alone: another one may be past it already. Of two lanes that stand
/// still both must go on.
pub async fn tell_fault(
    pool: &PgPool,
    fence: i64,
    seq: u64,
    what: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into projection_fault as known (projection, seq, what)
         select $1, $3, $4 from projection_lease where projection = $1 and fence = $2
         on conflict (projection) do update set seq = greatest(known.seq, excluded.seq), what = excluded.what",
    )
    .bind(PROJECTION)
    .bind(fence)
    .bind(signed(seq))
    .bind(what)
    .execute(pool)
    .await?;
    Ok(())
}

pub async fn clear_fault(pool: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query("delete from projection_fault where projection = $1")
        .bind(PROJECTION)
        .execute(pool)
        .await?;
    Ok(())
}
