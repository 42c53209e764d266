//! Which reads are asked most: kept in Postgres while a process runs, for the next one that starts.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{cache::HotRead, state::App};

/// Reads that are kept, and those that a new process answers beforehand.
const MOST: usize = 500;
/// Rows of all instances together: what was asked longest ago goes first.
const KEPT: i64 = 2000;
const EVERY: Duration = Duration::from_secs(30);
/// The last time, when the service is asked to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Keeps them until told to stop, and then once more.
pub(crate) async fn keep(app: Arc<App>, stop: CancellationToken) {
    let mut turn = interval(EVERY);
    turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
    turn.tick().await;
    loop {
        let last = tokio::select! {
            () = stop.cancelled() => true,
            _ = turn.tick() => false,
        };
        let patience = if last { FAREWELL } else { EVERY };
        match timeout(patience, save(&app.pool, app.cache.asked_most(MOST))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "what is asked most was not kept"),
            Err(_) => debug!("what is asked most was not kept in time"),
        }
        if last {
            return;
        }
    }
}

async fn save(pool: &PgPool, asked: Vec<HotRead>) -> Result<(), sqlx::Error> {
    // In one order, so that two instances that save at the same time never wait for each other in a circle;
    // of two versions of an answer, one.
    let reads: BTreeMap<_, f64> = asked
        .iter()
        .map(|read| ((&read.org_id, &read.family, &read.question, read.pii), read.per_second))
        .collect();
    sqlx::query(
        "insert into hot_read (org_id, family, question, pii, per_second, asked_at)
         select *, now()
         from unnest($1::text[], $2::text[], $3::text[], $4::boolean[], $5::double precision[])
         on conflict (org_id, family, question, pii)
         do update set per_second = excluded.per_second, asked_at = excluded.asked_at",
    )
    .bind(reads.keys().map(|read| read.0.as_str()).collect::<Vec<_>>())
    .bind(reads.keys().map(|read| read.1.as_str()).collect::<Vec<_>>())
    .bind(reads.keys().map(|read| read.2.as_str()).collect::<Vec<_>>())
    .bind(reads.keys().map(|read| read.3).collect::<Vec<_>>())
    .bind(reads.values().copied().collect::<Vec<_>>())
    .execute(pool)
    .await?;
    // Of what many instances keep through a day, a new one looks at the hottest only.
    sqlx::query(
        "delete from hot_read where asked_at < now() - interval '1 day' or ctid in (
             select ctid from hot_read order by asked_at desc, per_second desc offset $1)",
    )
    .bind(KEPT)
    .execute(pool)
    .await?;
    Ok(())
}

/// The hottest first.
pub(super) async fn remembered(pool: &PgPool) -> Result<Vec<HotRead>, sqlx::Error> {
    sqlx::query_as(
        "select org_id, family, question, pii, per_second from hot_read
         order by per_second desc limit $1",
    )
    .bind(i64::try_from(MOST).unwrap_or(i64::MAX))
    .fetch_all(pool)
    .await
}
