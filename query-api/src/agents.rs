//! Agents: their metrics, and who leads.

mod leaderboard;
mod list;
mod metrics;

pub(crate) use leaderboard::Leaderboard;
pub(crate) use list::{Agent, Agents};
