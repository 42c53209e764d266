//! A made-up sales team: 25 people, two boards, 90 days of leads, and then live traffic; all of it as
//! signed monday.com webhooks through `ingest`'s door. The same seed and end give the same history.

mod board;
mod history;
mod lead;
mod live;
mod payload;
mod people;
mod send;

use std::{fs::File, io::Read};

use anyhow::Result;

pub use history::{Event, History};
pub use live::live;
pub use send::{Feed, play_history};

/// The boards of the demo's configuration.
pub const BOARDS: [i64; 2] = [9001, 9002];

/// A new signing secret.
pub fn new_secret() -> Result<String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
