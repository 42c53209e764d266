//! The integration tests: one binary, real servers, real services.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure of a test is a panic")]

mod configuration;
mod end_to_end;
mod faults;
mod fold;
mod hostile;
mod ingest_bounds;
mod ingest_cluster;
mod ingest_faults;
mod ingest_operators;
mod ingest_promises;
mod ingest_reload;
mod life;
mod operators;
mod projector;
mod query;
mod redis;
mod up;
mod webhooks;
