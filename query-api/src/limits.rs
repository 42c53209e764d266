//! How much a key may ask: a bucket of points for each key, filled steadily. A costly read takes more
//! points than a cheap one. One process counts for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::{auth::Caller, problem::Problem};

/// Points that come back in a second, and that a bucket holds.
const PER_SECOND: f64 = 2000.0;
const MOST: f64 = 10_000.0;

#[derive(Default)]
pub(crate) struct Limits {
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
}

impl Limits {
    pub(crate) fn admit(&self, caller: &Caller, cost: u32) -> Result<Left, Problem> {
        let now = Instant::now();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.entry(caller.key_id).or_insert(Bucket { points: MOST, filled: now });
        let came = now.duration_since(bucket.filled).as_secs_f64() * PER_SECOND;
        bucket.points = (bucket.points + came).min(MOST);
        bucket.filled = now;
        let cost = f64::from(cost);
        if bucket.points < cost {
            metrics::counter!("query_api_rate_limited_total").increment(1);
            let seconds = Duration::from_secs_f64((cost - bucket.points) / PER_SECOND);
            return Err(Problem::TooMany { retry_after_seconds: seconds.as_secs() + 1 });
        }
        bucket.points -= cost;
        Ok(Left { points: bucket.points })
    }
}

impl Left {
    /// The headers of draft-ietf-httpapi-ratelimit-headers.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        let seconds = MOST / PER_SECOND;
        let policy = HeaderValue::try_from(format!("\"key\";q={MOST};w={seconds}"));
        let left = HeaderValue::try_from(format!("\"key\";r={:.0}", self.points.floor()));
        if let (Ok(policy), Ok(left)) = (policy, left) {
            headers.insert("ratelimit-policy", policy);
            headers.insert("ratelimit", left);
        }
    }
}
