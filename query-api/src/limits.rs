//! How much a key and an org may ask: a bucket of points for each, filled steadily. A costly read takes more
//! points than a cheap one; one that is answered from memory takes none. One process counts for itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use axum::http::{HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::{
    auth::Caller,
    header::{RATELIMIT, RATELIMIT_POLICY, header_value},
    problem::Problem,
};

/// A bucket holds what comes back in so many seconds.
const BURST: f64 = 5.0;

pub(crate) struct Limits {
    key: Quota,
    org: Quota,
    buckets: Mutex<Buckets>,
    /// What answers say of the limits: of a key and its org, and of a key of the whole instance.
    policy: HeaderValue,
    instance_policy: HeaderValue,
}

/// Of keys that are good: as many as the orgs have, no more.
#[derive(Debug, Default)]
struct Buckets {
    keys: HashMap<Uuid, Bucket>,
    orgs: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    points: f64,
    filled: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Quota {
    per_second: f64,
}

/// What a caller has left, of its key's bucket and of its org's, where the key is of one.
#[derive(Debug, Clone)]
pub(crate) struct Left {
    key: f64,
    org: Option<f64>,
    policy: HeaderValue,
}

impl Quota {
    fn most(self) -> f64 {
        self.per_second * BURST
    }

    fn full(self, now: Instant) -> Bucket {
        Bucket { points: self.most(), filled: now }
    }

    /// What is in a bucket now: one that nobody has taken from yet is full.
    fn points(self, bucket: Option<&Bucket>, now: Instant) -> f64 {
        bucket.map_or(self.most(), |bucket| {
            let came = now.duration_since(bucket.filled).as_secs_f64() * self.per_second;
            (bucket.points + came).min(self.most())
        })
    }

    /// Fills up to now; the error says in how many seconds there is enough.
    fn fill(self, bucket: &mut Bucket, cost: f64, now: Instant) -> Result<f64, f64> {
        bucket.points = self.points(Some(bucket), now);
        bucket.filled = now;
        // What costs more than a bucket holds takes a full one.
        let cost = cost.min(self.most());
        if bucket.points < cost { Err((cost - bucket.points) / self.per_second) } else { Ok(cost) }
    }
}

impl Limits {
    pub(crate) fn new(per_key: u32, per_org: u32) -> Self {
        let quota = |points: u32| Quota { per_second: f64::from(points) };
        let (key, org) = (quota(per_key), quota(per_org));
        let (most_key, most_org) = (whole(key.most()), whole(org.most()));
        let (buckets, burst) = (Mutex::default(), whole(BURST));
        let of_key = format!("\"key\";q={most_key};w={burst}");
        let of_both = format!("{of_key}, \"org\";q={most_org};w={burst}");
        let header = |text| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        let (policy, instance_policy) = (header(of_both), header(of_key));
        Self { key, org, buckets, policy, instance_policy }
    }

    /// Takes the points of a key of the whole instance, which has no org's bucket.
    pub(crate) fn admit_instance(&self, key_id: Uuid, cost: u32) -> Result<(), Problem> {
        let (now, cost) = (Instant::now(), f64::from(cost));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.keys.entry(key_id).or_insert_with(|| self.key.full(now));
        let filled = self.key.fill(bucket, cost, now);
        let policy = self.instance_policy.clone();
        let left = Left { key: bucket.points, org: None, policy };
        let cost = filled.map_err(|wait| Problem::too_many(wait, left))?;
        bucket.points -= cost;
        Ok(())
    }

    /// Takes the points of a read that Postgres or Redis is to be asked for: of both buckets or of none.
    /// What the service asks itself takes none: nobody's budget is smaller after a start.
    pub(crate) fn admit(&self, caller: &Caller, cost: u32) -> Result<Left, Problem> {
        let cost = if caller.is_the_service() { 0.0 } else { f64::from(cost) };
        let now = Instant::now();
        let mut guard = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let buckets = &mut *guard;
        let key = buckets.keys.entry(caller.key_id).or_insert_with(|| self.key.full(now));
        if !buckets.orgs.contains_key(&caller.org.id) {
            buckets.orgs.insert(caller.org.id.clone(), self.org.full(now));
        }
        let org = buckets.orgs.get_mut(&caller.org.id).ok_or(Problem::Internal)?;
        match (self.key.fill(key, cost, now), self.org.fill(org, cost, now)) {
            (Ok(of_key), Ok(of_org)) => {
                key.points -= of_key;
                org.points -= of_org;
                Ok(self.of(key, org))
            }
            (of_key, of_org) => {
                let wait = of_key.err().unwrap_or(0.0).max(of_org.err().unwrap_or(0.0));
                Err(Problem::too_many(wait, self.of(key, org)))
            }
        }
    }

    fn of(&self, key: &Bucket, org: &Bucket) -> Left {
        Left { key: key.points, org: Some(org.points), policy: self.policy.clone() }
    }

    /// What is left, for an answer from memory: it costs nothing.
    pub(crate) fn left(&self, caller: &Caller, now: Instant) -> Left {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = buckets.keys.get(&caller.key_id);
        let org = buckets.orgs.get(&caller.org.id);
        let (key, org) = (self.key.points(key, now), self.org.points(org, now));
        drop(buckets);
        Left { key, org: Some(org), policy: self.policy.clone() }
    }

    /// The same of a key of the whole instance.
    pub(crate) fn left_of_instance(&self, key_id: Uuid, now: Instant) -> Left {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.key.points(buckets.keys.get(&key_id), now);
        Left { key, org: None, policy: self.instance_policy.clone() }
    }
}

impl Left {
    /// The headers of draft-ietf-httpapi-ratelimit-headers.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let key = whole(self.key);
        let left = match self.org.map(whole) {
            Some(org) => header_value(format_args!("\"key\";r={key}, \"org\";r={org}")),
            None => header_value(format_args!("\"key\";r={key}")),
        };
        headers.insert(RATELIMIT_POLICY, self.policy.clone());
        if let Some(left) = left {
            headers.insert(RATELIMIT, left);
        }
    }
}

/// Whole points: to write a float takes ten times as long, which was a share of every answer.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "points are few and not below none"
)]
fn whole(points: f64) -> u64 {
    points.max(0.0) as u64
}
