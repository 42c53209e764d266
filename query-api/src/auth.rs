//! Who asks: API keys, hashed in the database, with scopes. A key names its org.

mod key;
mod manage;
mod scope;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, header};
use chrono::{DateTime, Utc};
use leadpulse_service::config::Org;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{problem::Problem, state::Orgs};
pub use manage::manage;
pub use scope::{Scope, Scopes};

/// How long a look-up is believed: a revoked key fails everywhere within this time.
const BELIEVED: Duration = Duration::from_secs(1);
/// Look-ups kept at most, known and unknown keys alike.
const REMEMBERED: u64 = 10_000;

/// An authenticated caller.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) org: Arc<Org>,
    pub(crate) key_id: Uuid,
    /// Of the key: to ask for it again.
    hash: [u8; 32],
    scopes: Scopes,
    /// Then the key is looked up again, or it expires.
    believed_until: Instant,
}

impl Caller {
    /// This service itself, for an org's reads that nobody has asked it for yet.
    pub(crate) fn of_the_service(org: &Arc<Org>, pii: bool) -> Self {
        let scopes = [Scope::Leads, Scope::Metrics].into_iter().chain(pii.then_some(Scope::Pii));
        let scopes: Vec<_> = scopes.map(|scope| scope.as_str().to_owned()).collect();
        let (org, scopes) = (Arc::clone(org), Scopes::of(&scopes));
        Self { org, key_id: Uuid::nil(), hash: [0; 32], scopes, believed_until: Instant::now() }
    }

    /// Need the key not be looked up again yet?
    pub(crate) fn is_believed(&self, now: Instant) -> bool {
        now < self.believed_until
    }

    pub(crate) fn is_the_service(&self) -> bool {
        self.key_id.is_nil()
    }

    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(scope)
    }

    pub(crate) fn needs(&self, scope: Scope) -> Result<(), Problem> {
        if self.may(scope) { Ok(()) } else { Err(Problem::Forbidden(scope)) }
    }
}

#[derive(Debug, Clone, sqlx::FromRow)]
struct Stored {
    id: Uuid,
    /// None of a key of the whole instance.
    org_id: Option<String>,
    scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
}

/// The keys, as the database has them.
pub(crate) struct Keys {
    pool: PgPool,
    orgs: Orgs,
    known: moka::future::Cache<[u8; 32], Option<Arc<Found>>>,
}

/// A key, and until when it is believed.
#[derive(Debug)]
struct Found {
    stored: Stored,
    until: Instant,
}

impl Keys {
    pub(crate) fn new(pool: PgPool, orgs: Orgs) -> Self {
        let known =
            moka::future::Cache::builder().max_capacity(REMEMBERED).time_to_live(BELIEVED).build();
        Self { pool, orgs, known }
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
        let stored = &self.good(hash).await?.stored;
        let instance = Scope::Instance;
        let may = stored.scopes.iter().any(|scope| scope == instance.as_str());
        if stored.org_id.is_none() && may {
            Ok(stored.id)
        } else {
            Err(Problem::Forbidden(instance))
        }
    }

    pub(crate) async fn caller(&self, key: &str) -> Result<Caller, Problem> {
        self.by_hash(key::hash(key).ok_or(Problem::Unauthorized)?).await
    }

    /// Was the caller's key revoked, or did it expire, since the caller was let in? Not known is no.
    pub(crate) async fn is_gone(&self, caller: &Caller) -> bool {
        matches!(self.by_hash(caller.hash).await, Err(Problem::Unauthorized))
    }

    async fn by_hash(&self, hash: [u8; 32]) -> Result<Caller, Problem> {
        let found = self.good(hash).await?;
        let Found { stored, until } = &*found;
        let org_id = stored.org_id.as_ref().ok_or(Problem::OfNoOrg)?;
        let org = self.orgs.get(org_id).cloned().ok_or(Problem::Unauthorized)?;
        let scopes = Scopes::of(&stored.scopes);
        Ok(Caller { org, key_id: stored.id, hash, scopes, believed_until: *until })
    }

    /// The key, if it is known and neither expired nor revoked.
    async fn good(&self, hash: [u8; 32]) -> Result<Arc<Found>, Problem> {
        let known = self.known.get(&hash).await;
        // A look-up that took long is known for longer than it may be believed.
        let late = known.iter().flatten().any(|found| found.until <= Instant::now());
        if late {
            self.known.invalidate(&hash).await;
        }
        let found = match known.filter(|_| !late) {
            Some(found) => found,
            None => {
                let looked_up = self.known.try_get_with(hash, self.look_up(hash)).await;
                looked_up.map_err(|error| Problem::from(&*error))?
            }
        };
        let found = found.ok_or(Problem::Unauthorized)?;
        let expired = found.stored.expires_at.is_some_and(|at| at <= Utc::now());
        if expired || found.stored.revoked_at.is_some() {
            return Err(Problem::Unauthorized);
        }
        Ok(found)
    }

    /// Notes the use at most once a minute and key: a read must not become a write.
    async fn look_up(&self, hash: [u8; 32]) -> Result<Option<Arc<Found>>, sqlx::Error> {
        // From before the question: a key that is revoked meanwhile is not believed for longer.
        let (asked, now) = (Instant::now(), Utc::now());
        let stored: Option<Stored> = sqlx::query_as(
            "with used as (
                 update api_key set last_used_at = now()
                 where hash = $1 and (last_used_at is null or last_used_at < now() - interval '1 minute'))
             select id, org_id, scopes, expires_at, revoked_at from api_key where hash = $1",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.pool)
        .await?;
        Ok(stored.map(|stored| {
            let left = stored.expires_at.map(|at| (at - now).to_std().unwrap_or_default());
            let until = asked + left.unwrap_or(BELIEVED).min(BELIEVED);
            Arc::new(Found { stored, until })
        }))
    }
}

fn bearer(headers: &HeaderMap) -> Result<&str, Problem> {
    let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, key) =
        header.and_then(|text| text.split_once(' ')).ok_or(Problem::Unauthorized)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(key.trim()) } else { Err(Problem::Unauthorized) }
}
