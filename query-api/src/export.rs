//! `GET /v1/export/leads.csv` and `GET /v1/export/leaderboard.csv`: what the lists have, for spreadsheets.

mod csv;
mod leaderboard;
mod leads;
mod spool;

pub(crate) use leaderboard::LeaderboardCsv;
pub(crate) use leads::leads_csv;
pub(crate) use spool::Disk;

use sqlx::PgPool;

/// What exports of leads have for themselves.
pub(crate) struct Exports {
    /// Connections that no dashboard waits for.
    pub(crate) pool: PgPool,
    pub(crate) disk: Disk,
}
