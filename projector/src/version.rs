//! The versions of the orgs' read models: raised after commit, debounced. Cached answers carry them in
//! their keys, so nothing is ever deleted from a cache.
//!
//! A version is the time at which it was raised, in milliseconds, or one more than the one before if that is
//! more: after a restore from an older copy none comes again under which a cache has answers of other data.
//! As many of its steps are counted as being of AgentMetrics alone as were made for them.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A burst of commits gives one new version in this time.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What of an org's read models has changed, as `/v1/stream` calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// AgentMetrics alone.
    Metrics,
    /// Leads, and with them what is counted of them.
    Leads,
}

/// The orgs whose read models have changed since their version was raised.
#[derive(Debug, Default)]
pub struct Versions {
    touched: Mutex<BTreeMap<String, Topic>>,
    changed: Notify,
}

impl Versions {
    pub fn touch(&self, orgs: impl IntoIterator<Item = String>, topic: Topic) {
        let mut touched = self.touched.lock().unwrap_or_else(PoisonError::into_inner);
        for org in orgs {
            let known = touched.entry(org).or_insert(topic);
            *known = topic.max(*known);
        }
        self.changed.notify_one();
    }

    fn take(&self) -> BTreeMap<String, Topic> {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Publishes until told to stop; what was touched by then is still published.
    pub async fn publish(&self, pool: &PgPool, stop: CancellationToken) -> Result<(), sqlx::Error> {
        loop {
            tokio::select! {
                () = self.changed.notified() => {}
                () = stop.cancelled() => return raise(pool, self.take()).await,
            }
            raise(pool, self.take()).await?;
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
    touched: impl IntoIterator<Item = (String, Topic)>,
) -> Result<(), sqlx::Error> {
    let (orgs, of_metrics): (Vec<String>, Vec<bool>) =
        touched.into_iter().map(|(org, topic)| (org, topic == Topic::Metrics)).unzip();
    if orgs.is_empty() {
        return Ok(());
    }
    crash_point!("version");
    sqlx::query(
        "with touched as (
             select org_id, of_metrics, (extract(epoch from clock_timestamp()) * 1000)::bigint as version
             from unnest($1::text[], $2::boolean[]) as touched (org_id, of_metrics)),
         raised as (
             insert into org_version as known (org_id, version, of_metrics)
             select org_id, version, case when of_metrics then version else 0 end from touched
             on conflict (org_id) do update set version = greatest(known.version + 1, excluded.version),
                 of_metrics = known.of_metrics + case when excluded.of_metrics > 0
                     then greatest(known.version + 1, excluded.version) - known.version else 0 end,
                 updated_at = now()
             returning org_id, version)
         select pg_notify('leadpulse_version', org_id || ':' || version) from raised",
    )
    .bind(orgs)
    .bind(of_metrics)
    .execute(executor)
    .await?;
    Ok(())
}
