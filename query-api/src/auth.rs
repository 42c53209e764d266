//! Who asks: API keys, hashed in the database, with scopes. A key names its org.

mod key;
mod known;
mod manage;
mod scope;

use std::{sync::Arc, time::Instant};

use axum::http::{HeaderMap, header};
use leadpulse_service::config::Org;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{problem::Problem, state::Orgs};
use known::{Found, Known};
pub use manage::manage;
pub use scope::{Scope, Scopes};

/// An authenticated caller.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) org: Arc<Org>,
    pub(crate) key_id: Uuid,
    scopes: Scopes,
    /// None of the service itself.
    found: Option<Arc<Found>>,
}

impl Caller {
    /// This service itself, for an org's reads that nobody has asked it for yet.
    pub(crate) fn of_the_service(org: &Arc<Org>, pii: bool) -> Self {
        let scopes = [Scope::Leads, Scope::Metrics].into_iter().chain(pii.then_some(Scope::Pii));
        let scopes: Vec<_> = scopes.map(|scope| scope.as_str().to_owned()).collect();
        let (org, scopes) = (Arc::clone(org), Scopes::of(&scopes));
        Self { org, key_id: Uuid::nil(), scopes, found: None }
    }

    /// Asks again under the same key: is it known to be good still?
    pub(crate) fn comes_again(&self, now: Instant) -> bool {
        let believed = self.found.as_ref().filter(|found| found.is_believed(now));
        believed.inspect(|found| found.note_use()).is_some()
    }

    pub(crate) fn is_the_service(&self) -> bool {
        self.found.is_none()
    }

    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) { Ok(()) } else { Err(Problem::Forbidden(scope)) }
    }
}

/// The keys, as the database has them.
pub(crate) struct Keys {
    orgs: Orgs,
    known: Known,
}

impl Keys {
    pub(crate) fn new(pool: &PgPool, orgs: Orgs) -> Self {
        Self { orgs, known: Known::new(pool) }
    }

    /// Keeps what is known of keys that are in use true, until told to stop.
    pub(crate) async fn follow(&self, stop: CancellationToken) {
        self.known.follow(stop).await;
    }

    pub(crate) fn orgs(&self) -> impl Iterator<Item = &Arc<Org>> {
        self.orgs.values()
    }

    pub(crate) fn org(&self, id: &str) -> Option<Arc<Org>> {
        self.orgs.get(id).cloned()
    }

    /// The caller of a request with `Authorization: Bearer lp_…`.
    pub(crate) async fn bearer(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        self.caller(bearer(headers)?).await
    }

    /// The key of the whole instance that a request with `Authorization: Bearer lp_…` has.
    pub(crate) async fn of_the_instance(&self, headers: &HeaderMap) -> Result<Uuid, Problem> {
        let hash = key::hash(bearer(headers)?).ok_or(Problem::Unauthorized)?;
        let found = self.known.good(hash).await?;
        let stored = found.stored();
        let instance = Scope::Instance;
        let may = stored.scopes.iter().any(|scope| scope == instance.as_str());
        if stored.org_id.is_none() && may {
            Ok(stored.id)
        } else {
            Err(Problem::Forbidden(instance))
        }
    }

    pub(crate) async fn caller(&self, key: &str) -> Result<Caller, Problem> {
        let hash = key::hash(key).ok_or(Problem::Unauthorized)?;
        let found = self.known.good(hash).await?;
        let stored = found.stored();
        let org_id = stored.org_id.as_ref().ok_or(Problem::OfNoOrg)?;
        let org = self.org(org_id).ok_or(Problem::Unauthorized)?;
        let (key_id, scopes) = (stored.id, Scopes::of(&stored.scopes));
        Ok(Caller { org, key_id, scopes, found: Some(found) })
    }

    /// Was the caller's key revoked, or did it expire, since the caller was let in? Not known is no.
    pub(crate) async fn is_gone(&self, caller: &Caller) -> bool {
        let Some(found) = &caller.found else { return false };
        self.known.is_gone(found.hash()).await
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, key) =
        header.and_then(|text| text.split_once(' ')).ok_or(Problem::Unauthorized)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(key.trim()) } else { Err(Problem::Unauthorized) }
}
