//! What the integration tests stand on: a naive second implementation of the specification, histories
//! in monday.com's own payload dialect, and a harness that runs the real binaries on real servers.

#![allow(clippy::expect_used, reason = "this crate is only tests; a failure of theirs is a panic")]

pub mod cluster;
pub mod document;
pub mod door;
pub mod generate;
pub mod harness;
pub mod load;
pub mod naive;
pub mod proxy;
pub mod rules;
pub mod wire;
