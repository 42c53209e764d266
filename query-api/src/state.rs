//! What all requests share.

use std::{collections::HashMap, sync::Arc};

use leadpulse_service::config::Org;
use sqlx::PgPool;

use crate::{
    applied::Applied, auth::Keys, cache::Cache, cursor::Signer, limits::Limits, versions::Versions,
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
}

pub(crate) fn orgs(orgs: &[Org]) -> Orgs {
    Arc::new(orgs.iter().map(|org| (org.id.clone(), Arc::new(org.clone()))).collect())
}
