//! What all requests share.

use std::{collections::HashMap, sync::Arc};

use leadpulse_service::config::Org;
use projector::{mapping::Mapping, ops::Tools};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    applied::Applied, auth::Keys, cache::Cache, consistency::Head, cursor::Signer, export::Exports,
    front::Meanings, limits::Limits, live::Hub, ops::instance::work::LongWork, versions::Versions,
};

pub(crate) type Orgs = Arc<HashMap<String, Arc<Org>>>;

pub(crate) struct App {
    pub(crate) pool: PgPool,
    pub(crate) exports: Exports,
    pub(crate) keys: Keys,
    pub(crate) cache: Cache,
    pub(crate) meanings: Meanings,
    pub(crate) versions: Versions,
    pub(crate) applied: Applied,
    pub(crate) cursors: Signer,
    pub(crate) limits: Limits,
    pub(crate) hub: Hub,
    pub(crate) head: Head,
    /// What the boards' columns mean: the projector's own reading of them.
    pub(crate) mapping: Mapping,
    /// Answers that are being made from Postgres.
    pub(crate) loads: Semaphore,
    /// How many may be made at the same time.
    pub(crate) loads_limit: usize,
    /// Those that may be made anew at the same time while the old ones are served: nobody waits for them, and
    /// they must not keep those waiting for whom somebody does.
    pub(crate) renewals: Arc<Semaphore>,
    /// What `/ops` works with: connections of its own, so that an operator keeps no dashboard waiting.
    pub(crate) ops: Tools,
    /// Repairs that go on: each may outlive the request that began it.
    pub(crate) repairs: Arc<Semaphore>,
    /// Long work of the whole instance, in its own turn: one at a time, its end is told by its audit row.
    pub(crate) long_work: Arc<LongWork>,
    pub(crate) stop: CancellationToken,
}

impl App {
    /// What `/health/detailed` tells of the reads that are being made now.
    pub(crate) fn in_flight(&self) -> Value {
        let free = self.loads.available_permits();
        let making = self.loads_limit.saturating_sub(free);
        metrics::gauge!("query_api_loads_in_flight")
            .set(f64::from(u32::try_from(making).unwrap_or(0)));
        json!({ "in_flight": making, "limit": self.loads_limit })
    }
}

pub(crate) fn orgs(orgs: &[Org]) -> Orgs {
    Arc::new(orgs.iter().map(|org| (org.id.clone(), Arc::new(org.clone()))).collect())
}
