//! What the integration tests stand on: a naive second implementation of the specification, histories
//! in monday.com's own payload dialect, and a harness that runs the real binaries on real servers.

pub mod generate;
pub mod naive;
pub mod rules;
