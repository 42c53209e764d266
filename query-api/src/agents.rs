//! Agents: their metrics, and who leads.

mod leaderboard;
mod metrics;

pub(crate) use leaderboard::Leaderboard;
