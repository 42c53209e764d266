//! `query-api`: the reads of sales dashboards. Read models first, cache second; the org comes from the
//! credential, never from the URL.

pub mod agents;
mod applied;
mod asked;
pub mod auth;
mod cache;
pub mod cli;
mod consistency;
mod cursor;
mod db;
mod download;
mod export;
mod front;
mod header;
pub mod http;
pub mod kpis;
pub mod leads;
mod limits;
mod live;
mod meta;
mod openapi;
mod ops;
mod params;
mod problem;
mod read;
mod search;
pub mod serve;
mod state;
mod text;
mod users;
mod value;
mod versions;
mod warm;
mod window;
