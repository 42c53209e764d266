//! How much a second one source may send: a bucket of tokens that refills with time.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    bucket: Mutex<Bucket>,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Rate {
    /// A burst may be twice of what a second allows.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let per_second = f64::from(per_second);
        Self { per_second, bucket: Mutex::new(Bucket { tokens: 2.0 * per_second, filled_at: now }) }
    }

    /// Takes so many tokens, if there is one: who takes more than there are leaves a debt, which the next
    /// ones wait for.
    pub(super) fn take(&self, tokens: f64, now: Instant) -> bool {
        // A poisoned lock only says that another request panicked; the two numbers are whole.
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(bucket.filled_at).as_secs_f64();
        bucket.tokens = (bucket.tokens + passed * self.per_second).min(2.0 * self.per_second);
        bucket.filled_at = now;
        let allowed = bucket.tokens >= 1.0;
        if allowed {
            bucket.tokens -= tokens;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_allowed_and_then_the_rate() {
        let start = Instant::now();
        let rate = Rate::new(10, start);
        let taken = |at| (0..100).filter(|_| rate.take(1.0, at)).count();
        assert_eq!(taken(start), 20);
        assert_eq!(taken(start + Duration::from_millis(500)), 5);
        assert_eq!(taken(start + Duration::from_secs(3600)), 20);
    }

    #[test]
    fn what_is_larger_than_the_bucket_is_let_in_and_paid_for_afterwards() {
        let start = Instant::now();
        let rate = Rate::new(10, start);
        assert!(rate.take(60.0, start));
        let after = |millis| rate.take(1.0, start + Duration::from_millis(millis));
        assert_eq!([1000, 3900, 4200].map(after), [false, false, true]);
    }
}
