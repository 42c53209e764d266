//! What all requests share.

use std::{collections::HashMap, sync::Arc};

use leadpulse_service::config::Org;
use sqlx::PgPool;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    applied::Applied, auth::Keys, cache::Cache, consistency::Head, cursor::Signer, limits::Limits,
    live::Hub, versions::Versions,
};

pub(crate) type Orgs = Arc<HashMap<String, Arc<Org>>>;

pub(crate) struct App {
    pub(crate) pool: PgPool,
    pub(crate) keys: Keys,
    pub(crate) cache: Cache,
    pub(crate) versions: Versions,
    pub(crate) applied: Applied,
    pub(crate) cursors: Signer,
    pub(crate) limits: Limits,
    pub(crate) hub: Hub,
    pub(crate) head: Head,
    /// Answers that are being made from Postgres.
    pub(crate) loads: Semaphore,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn orgs(orgs: &[Org]) -> Orgs {
    Arc::new(orgs.iter().map(|org| (org.id.clone(), Arc::new(org.clone()))).collect())
}
