//! What operators see: health, lag and backlogs, asked of the stream and of Postgres and not of the
//! reader, so that they are right also when the reader is dead or another projector is the active one.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Stream};
use chrono::Utc;
use leadpulse_service::health::{Dependency, Health};
use sqlx::{PgPool, Row};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    reader::{self, ReadError, Seen},
    store::PROJECTION,
};

const EVERY: Duration = Duration::from_secs(1);
/// How long Postgres may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

pub struct Watch {
    pub pool: PgPool,
    pub jetstream: jetstream::Context,
    pub postgres: Dependency,
    pub nats: Dependency,
    pub health: Health,
}

/// What the tables say of the projection.
#[derive(Debug, Default)]
struct Tables {
    applied: i64,
    /// Seconds since a lane last moved, and until the lease ends (below zero: it has).
    position_age: Option<f64>,
    lease_left: Option<f64>,
    parked_leads: i64,
    dirty_agents: i64,
    oldest_mark_age: Option<f64>,
    expired_rows: i64,
    server_version: String,
}

impl Watch {
    /// Looks once a second until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let stream = self.look_at_stream().await;
            let tables = self.look_at_tables().await;
            if let Some(tables) = &tables {
                record_tables(tables);
            }
            if let (Some((stream, seen)), Some(tables)) = (stream, tables) {
                let applied = u64::try_from(tables.applied).unwrap_or(0);
                let since = reader::waiting_since(&stream, &seen, applied).await;
                let waited = since.and_then(|since| (Utc::now() - since).to_std().ok());
                self.record_lag(applied, seen.last, waited.unwrap_or_default());
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn look_at_stream(&self) -> Option<(Stream, Seen)> {
        let started = Instant::now();
        let looked = async {
            let stream = reader::find(&self.jetstream).await?;
            let seen = reader::look(&stream).await?;
            Ok::<_, ReadError>((stream, seen))
        };
        match looked.await {
            Ok((stream, seen)) => {
                let detail = format!("stream {} at {}", seen.identity.name, seen.last);
                self.nats.is_of_version(&self.jetstream.client().server_info().version);
                self.nats.up(Some(started.elapsed()), detail);
                Some((stream, seen))
            }
            Err(error) => {
                self.nats.down(error.to_string());
                None
            }
        }
    }

    async fn look_at_tables(&self) -> Option<Tables> {
        let started = Instant::now();
        match timeout(ANSWER, tables(&self.pool)).await {
            Ok(Ok(tables)) => {
                self.postgres.is_of_version(&tables.server_version);
                self.postgres.up(Some(started.elapsed()), "answers");
                Some(tables)
            }
            Ok(Err(error)) => {
                self.postgres.down(error.to_string());
                None
            }
            Err(_) => {
                self.postgres.down("no answer in time");
                None
            }
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floats; sequences stay far below 2^53"
    )]
    fn record_lag(&self, applied: u64, head: u64, waited: Duration) {
        let lag = head.saturating_sub(applied);
        let seconds = waited.as_secs_f64();
        metrics::gauge!("projector_applied_seq").set(applied as f64);
        metrics::gauge!("projector_head_seq").set(head as f64);
        metrics::gauge!("projector_lag_events").set(lag as f64);
        metrics::gauge!("projector_lag_seconds").set(seconds);
        self.health.fact("applied_seq", applied);
        self.health.fact("head_seq", head);
        self.health.fact("lag_events", lag);
        self.health.fact("lag_seconds", seconds);
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; counts stay far below 2^53")]
fn record_tables(tables: &Tables) {
    metrics::gauge!("projector_parked_leads").set(tables.parked_leads as f64);
    metrics::gauge!("projector_dirty_agents").set(tables.dirty_agents as f64);
    metrics::gauge!("projector_oldest_mark_seconds").set(tables.oldest_mark_age.unwrap_or(0.0));
    metrics::gauge!("projector_expired_rows").set(tables.expired_rows as f64);
    metrics::gauge!("projector_position_age_seconds").set(tables.position_age.unwrap_or(0.0));
    metrics::gauge!("projector_lease_left_seconds").set(tables.lease_left.unwrap_or(0.0));
}

async fn tables(pool: &PgPool) -> Result<Tables, sqlx::Error> {
    let row = sqlx::query(
        "select
             (select coalesce(min(seq), 0) from checkpoint where projection = $1),
             (select extract(epoch from now() - max(updated_at))::double precision
              from checkpoint where projection = $1),
             (select extract(epoch from expires_at - now())::double precision
              from projection_lease where projection = $1),
             (select count(distinct (org_id, board_id, item_id)) from dead_letter
              where projection = $1 and resolved_at is null),
             (select count(distinct (org_id, agent_id)) from agent_dirty),
             (select extract(epoch from now() - min(marked_at))::double precision from agent_dirty),
             (select count(*) from agent_metrics where valid_until <= now()),
             current_setting('server_version')",
    )
    .bind(PROJECTION)
    .fetch_one(pool)
    .await?;
    Ok(Tables {
        applied: row.try_get(0)?,
        position_age: row.try_get(1)?,
        lease_left: row.try_get(2)?,
        parked_leads: row.try_get(3)?,
        dirty_agents: row.try_get(4)?,
        oldest_mark_age: row.try_get(5)?,
        expired_rows: row.try_get(6)?,
        server_version: row.try_get(7)?,
    })
}
