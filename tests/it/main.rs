//! The integration tests: one binary, real servers, real services.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failure of a test is a panic")]

mod configuration;
mod fold;
mod projector;
mod webhooks;
