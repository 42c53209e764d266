//! `query-api`: the reads of sales dashboards. Read models first, cache second; the org comes from the
//! credential, never from the URL.

pub mod agents;
mod applied;
pub mod auth;
mod cache;
pub mod cli;
mod cursor;
mod db;
pub mod http;
pub mod kpis;
pub mod leads;
mod limits;
mod params;
mod problem;
mod read;
pub mod serve;
mod state;
mod value;
mod versions;
mod window;
