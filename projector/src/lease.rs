//! One active projector, any number of standbys. Taking the lease raises the fence, so that an owner
//! that froze and thaws writes nothing any more.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::store::PROJECTION;

#[derive(Debug, Clone)]
pub struct Lease {
    pub fence: i64,
    owner: String,
    /// How long a silent owner keeps it.
    ttl: Duration,
}

impl Lease {
    /// Takes the lease if it is free or expired.
    pub async fn take(pool: &PgPool, ttl: Duration) -> Result<Option<Self>, sqlx::Error> {
        let owner = Uuid::new_v4().to_string();
        let fence: Option<(i64,)> = sqlx::query_as(
            "insert into projection_lease (projection, owner, fence, expires_at)
             values ($1, $2, 1, now() + make_interval(secs => $3))
             on conflict (projection) do update set
                 owner = excluded.owner, fence = projection_lease.fence + 1, expires_at = excluded.expires_at
             where projection_lease.expires_at <= now()
             returning fence",
        )
        .bind(PROJECTION)
        .bind(&owner)
        .bind(ttl.as_secs_f64())
        .fetch_optional(pool)
        .await?;
        Ok(fence.map(|(fence,)| Self { fence, owner, ttl }))
    }

    /// Keeps the lease until told to stop; returns early when it is lost.
    pub async fn keep(&self, pool: &PgPool, stop: CancellationToken) {
        let every = self.ttl * 3 / 10;
        let mut last_renewal = tokio::time::Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = stop.cancelled() => return,
            }
            match tokio::time::timeout(every, self.renew(pool)).await {
                Ok(Ok(true)) => last_renewal = tokio::time::Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => warn!(%error, "lease not renewed"),
                Err(_) => warn!("lease not renewed in time"),
            }
            if last_renewal.elapsed() > self.ttl {
                return;
            }
        }
    }

    async fn renew(&self, pool: &PgPool) -> Result<bool, sqlx::Error> {
        let renewed = sqlx::query(
            "update projection_lease set expires_at = now() + make_interval(secs => $4)
             where projection = $1 and owner = $2 and fence = $3",
        )
        .bind(PROJECTION)
        .bind(&self.owner)
        .bind(self.fence)
        .bind(self.ttl.as_secs_f64())
        .execute(pool)
        .await?;
        Ok(renewed.rows_affected() == 1)
    }

    /// Gives the lease back, so that a standby need not wait for its end.
    pub async fn release(&self, pool: &PgPool) -> Result<(), sqlx::Error> {
        sqlx::query(
            "update projection_lease set expires_at = now() where projection = $1 and owner = $2 and fence = $3",
        )
        .bind(PROJECTION)
        .bind(&self.owner)
        .bind(self.fence)
        .execute(pool)
        .await?;
        Ok(())
    }
}
