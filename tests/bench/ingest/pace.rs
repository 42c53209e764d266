//! When requests are due, and what came of them.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::report::percentile;

/// The turns of one of several who ask: at an even pace, or as soon as the one before is answered.
pub(super) struct Pace {
    every: Option<Duration>,
    due: Instant,
}

impl Pace {
    /// `rate` is of all of them together, a second.
    pub(super) fn new(rate: Option<f64>, nth: usize, of: usize, began: Instant) -> Self {
        let every = rate.map(|rate| Duration::from_secs_f64(of as f64 / rate));
        let due = began + every.unwrap_or_default().mul_f64(nth as f64 / of as f64);
        Self { every, due }
    }

    /// Waits for the next turn; its time runs from when it was due, however late it is.
    pub(super) async fn turn(&mut self) -> Instant {
        let Some(every) = self.every else { return Instant::now() };
        sleep_until(self.due).await;
        let due = self.due;
        self.due += every;
        due
    }
}

pub(super) struct Figures {
    pub count: usize,
    pub rate: f64,
    pub median_ms: f64,
    pub p99_ms: f64,
}

impl Figures {
    pub(super) fn of(mut times: Vec<Duration>, took: Duration) -> Self {
        Self {
            count: times.len(),
            rate: times.len() as f64 / took.as_secs_f64(),
            median_ms: percentile(&mut times, 0.5).as_secs_f64() * 1e3,
            p99_ms: percentile(&mut times, 0.99).as_secs_f64() * 1e3,
        }
    }

    pub(super) fn times(&self) -> String {
        format!("{:.1} / {:.1} ms", self.median_ms, self.p99_ms)
    }
}
