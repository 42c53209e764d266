//! Postgres: a pool with bounds, and snapshots that know what they are of.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use leadpulse_service::config::Postgres;
use projector::store::begin_as;
use secrecy::ExposeSecret;
use sqlx::{
    PgConnection, PgPool, Row, Transaction,
    postgres::{PgConnectOptions, PgPoolOptions},
};

/// What the read models have, AgentMetrics included: all lanes, and before the first waiting mark.
macro_rules! applied {
    () => {
        "select least(
             (select coalesce(min(seq), 0) from checkpoint where projection = 'main'),
             (select min(seq) - 1 from agent_dirty))"
    };
}
pub(crate) use applied;

/// A pool that connects when it is first used. All waits are bounded: overload is an answer, too.
pub(crate) fn pool(config: &Postgres) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(config.url.expose_secret())?
        .application_name("query-api")
        .options([("statement_timeout", "5s"), ("idle_in_transaction_session_timeout", "10s")]);
    Ok(PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_secs(2))
        .connect_lazy_with(options))
}

/// One consistent view of the read models. Whatever is read through it is of one instant.
pub(crate) struct Snapshot {
    transaction: Transaction<'static, sqlx::Postgres>,
    /// The sequence up to which everything is in this view.
    pub(crate) seq: i64,
    /// The time of the read.
    pub(crate) at: DateTime<Utc>,
}

/// The tables are locked before the first query, which is what the snapshot is taken for: a rebuild
/// swaps them between two reads, never within one, whose later queries would find tables that its
/// snapshot knows nothing of. One round trip with that query.
const LOCK_AND_LOOK: &str =
    concat!("lock table lead_fact, agent_metrics, monday_user in access share mode; ", applied!());

impl Snapshot {
    pub(crate) async fn open(pool: &PgPool) -> Result<Self, sqlx::Error> {
        // To its end also where the client goes away: the pool's next reader must not find itself inside it.
        let begin = "begin isolation level repeatable read read only";
        let mut transaction = begin_as(pool, begin).await?;
        let row = sqlx::raw_sql(LOCK_AND_LOOK).fetch_one(&mut *transaction).await?;
        Ok(Self { seq: row.try_get(0)?, at: now(), transaction })
    }

    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.transaction.commit().await
    }
}

/// The present, with microseconds, as everything else here.
pub(crate) fn now() -> DateTime<Utc> {
    instant::cut(Utc::now())
}
