//! The projector over a real stream and a real Postgres: the right rows, whatever is killed when.

mod access;
mod crashes;
mod faults;
mod figures;
mod memory;
mod owners;
mod poison;
mod range;
mod rebuild;
mod rows;
mod verify;
mod versions;
mod windows;

use tests::{
    generate::{Size, seeded_history},
    harness::{Setup, long_run},
    rules::Rules,
};

/// A random history of this many items and events, and its retries and twins.
fn history(items: i64, events: usize, seed: u64) -> Vec<String> {
    let now = chrono::Utc::now().timestamp_micros();
    let size = Size { items, events: events..events + 1 };
    seeded_history(&Rules::default(), &size, now, seed)
}

/// Without Redis: the projector knows none.
fn setup(environment: &[(&str, &str)]) -> Setup {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let usual = ("LEADPULSE_PROJECTOR_LEASE_TTL_MS", "3000");
    let environment = [usual].iter().chain(environment).map(own).collect();
    Setup { redis: false, environment, ..Setup::default() }
}

/// For tests that kill the projector again and again, and wait for its lease each time. A machine that is busy may
/// let one so short lapse, too.
const SHORT_LEASE: (&str, &str) = ("LEADPULSE_PROJECTOR_LEASE_TTL_MS", "800");

/// The full length of a test is for `--long`; every run has a short one.
fn long(full: usize, short: usize) -> usize {
    if long_run() { full } else { short }
}
