//! How much a key may ask: a bucket of points for each key, filled steadily. A costly read takes more
//! points than a cheap one; one that is answered from memory takes none. One process counts for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::{auth::Caller, problem::Problem};

/// A bucket holds what comes back in so many seconds.
const BURST: f64 = 5.0;

pub(crate) struct Limits {
    per_second: f64,
    /// Of keys that are good: as many as the orgs have, no more.
    buckets: Mutex<HashMap<Uuid, Bucket>>,
}

struct Bucket {
    points: f64,
    filled: Instant,
}

/// What a caller has left.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    points: f64,
    most: f64,
}

impl Limits {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second: f64::from(per_second), buckets: Mutex::default() }
    }

    /// Takes the points of a read that Postgres or Redis is to be asked for.
    pub(crate) fn admit(&self, caller: &Caller, cost: u32) -> Result<Left, Problem> {
        let now = Instant::now();
        let most = self.per_second * BURST;
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(caller.key_id).or_insert(Bucket { points: most, filled: now });
        let came = now.duration_since(bucket.filled).as_secs_f64() * self.per_second;
        bucket.points = (bucket.points + came).min(most);
        bucket.filled = now;
        // What costs more than a bucket holds takes a full one.
        let cost = f64::from(cost).min(most);
        if bucket.points < cost {
            metrics::counter!("query_api_rate_limited_total").increment(1);
            let seconds = Duration::from_secs_f64((cost - bucket.points) / self.per_second);
            return Err(Problem::TooMany { retry_after_seconds: seconds.as_secs() + 1 });
        }
        bucket.points -= cost;
        Ok(Left { points: bucket.points, most })
    }

    /// What is left, for an answer from memory: it costs nothing.
    pub(crate) fn left(&self, caller: &Caller) -> Result<Left, Problem> {
        self.admit(caller, 0)
    }
}

impl Left {
    /// The headers of draft-ietf-httpapi-ratelimit-headers.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let policy = HeaderValue::try_from(format!("\"key\";q={:.0};w={BURST:.0}", self.most));
        let left = HeaderValue::try_from(format!("\"key\";r={:.0}", self.points.floor()));
        if let (Ok(policy), Ok(left)) = (policy, left) {
            headers.insert("ratelimit-policy", policy);
            headers.insert("ratelimit", left);
        }
    }
}
