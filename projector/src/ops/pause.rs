//! A projection that must stand still: a row in Postgres that every projector obeys.

use std::{fmt, time::Duration};

use anyhow::{Result, bail};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use crate::store::PROJECTION;

/// The owner has this long to commit what it holds and to give up the lease.
const OBEYED: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct Pause {
    pub paused_at: DateTime<Utc>,
    pub paused_by: String,
    pub reason: String,
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { paused_at, paused_by, reason } = self;
        let since = paused_at.to_rfc3339_opts(SecondsFormat::Secs, true);
        write!(f, "paused by {paused_by} since {since} ({reason}); `projector resume` goes on")
    }
}

impl Pause {
    /// For those who do not run the instance: whoever paused it may have named others.
    pub(super) fn withheld(self) -> Self {
        let (paused_by, reason) =
            ("an operator".to_owned(), "ask who runs the instance".to_owned());
        Self { paused_by, reason, ..self }
    }

    /// Is the projection paused?
    pub async fn find(pool: &PgPool) -> Result<Option<Self>, sqlx::Error> {
        sqlx::query_as(
            "select paused_at, paused_by, reason from projection_pause where projection = $1",
        )
        .bind(PROJECTION)
        .fetch_optional(pool)
        .await
    }
}

/// Pauses the projection and waits until nobody projects any more. Pausing twice keeps the first pause.
pub async fn pause(pool: &PgPool, who: &str, reason: &str) -> Result<Pause> {
    sqlx::query(
        "insert into projection_pause (projection, paused_by, reason) values ($1, $2, $3)
         on conflict (projection) do nothing",
    )
    .bind(PROJECTION)
    .bind(who)
    .bind(reason)
    .execute(pool)
    .await?;
    let deadline = Instant::now() + OBEYED;
    while owned(pool).await? {
        if Instant::now() >= deadline {
            bail!("paused, but a projector still holds the lease: `projector status` tells which");
        }
        sleep(Duration::from_millis(50)).await;
    }
    match Pause::find(pool).await? {
        Some(pause) => Ok(pause),
        None => bail!("somebody has resumed the projection just now"),
    }
}

/// Lets the projection go on; what was lifted, if it was paused.
pub async fn resume(pool: &PgPool) -> Result<Option<Pause>> {
    Ok(sqlx::query_as(
        "delete from projection_pause where projection = $1 returning paused_at, paused_by, reason",
    )
    .bind(PROJECTION)
    .fetch_optional(pool)
    .await?)
}

/// Does somebody hold the lease now?
pub async fn owned(pool: &PgPool) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from projection_lease where projection = $1 and expires_at > now())",
    )
    .bind(PROJECTION)
    .fetch_one(pool)
    .await
}
