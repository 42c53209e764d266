//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// Tries `condition` until it holds; fails the test with `what` when it does not in time.
pub async fn wait_until(what: &str, patience: Duration, condition: impl AsyncFn() -> bool) {
    eventually(what, patience, async || condition().await.then_some(())).await;
}

/// Tries `find` until it gives something.
pub async fn eventually<T>(what: &str, patience: Duration, find: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = find().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", patience.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
