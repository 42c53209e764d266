//! The versions of the orgs' read models: raised after commit, debounced. Cached answers carry them in
//! their keys, so nothing is ever deleted from a cache.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A burst of commits gives one new version in this time.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// The orgs whose read models have changed since their version was raised.
#[derive(Debug, Default)]
pub struct Versions {
    touched: Mutex<BTreeSet<String>>,
    changed: Notify,
}

impl Versions {
    pub fn touch(&self, orgs: impl IntoIterator<Item = String>) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).extend(orgs);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<String> {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *touched).into_iter().collect()
    }

    /// Publishes until told to stop; what was touched by then is still published.
    pub async fn publish(&self, pool: &PgPool, stop: CancellationToken) -> Result<(), sqlx::Error> {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.cancelled() => return raise(pool, &self.take()).await,
            }
            raise(pool, &self.take()).await?;
            tokio::select! {
                () = tokio::time::sleep(DEBOUNCE) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// Raises the versions of these orgs, and tells.
pub(crate) async fn raise(
    executor: impl sqlx::PgExecutor<'_>,
    orgs: &[String],
) -> Result<(), sqlx::Error> {
    if orgs.is_empty() {
        return Ok(());
    }
    crash_point!("version");
    sqlx::query(
        "with raised as (
             insert into org_version (org_id, version) select org_id, 1 from unnest($1::text[]) as touched (org_id)
             on conflict (org_id) do update set version = org_version.version + 1, updated_at = now()
             returning org_id, version)
         select pg_notify('leadpulse_version', org_id || ':' || version) from raised",
    )
    .bind(orgs)
    .execute(executor)
    .await?;
    Ok(())
}
