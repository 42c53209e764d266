//! `GET /v1/export/leads.csv` and `GET /v1/export/leaderboard.csv`: what the lists have, for spreadsheets.

mod csv;
mod leaderboard;
mod leads;

pub(crate) use leaderboard::LeaderboardCsv;
pub(crate) use leads::leads_csv;
