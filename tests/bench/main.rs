//! `cargo xtask bench`: each figure beside the limit that it is a share of, measured in the same run.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed benchmark is a panic")]
#![allow(clippy::print_stdout, reason = "the table is the product")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures for people"
)]

mod ingest;
mod projector;
mod query;
mod rebuild;
mod report;
mod stage;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// ingest beside a bare HTTP server and a bare publish
    Ingest(ingest::Options),
    /// The projector beside the stream's read and Postgres' upserts
    Projector(projector::Options),
    /// query-api beside a bare HTTP server, and its misses on two million leads
    Query(query::Options),
    /// `projector rebuild` beside the stream's read and the writing of the finished rows
    Rebuild(rebuild::Options),
}

#[tokio::main]
async fn main() {
    match Arguments::parse().what {
        What::Ingest(options) => ingest::run(&options).await,
        What::Projector(options) => projector::run(&options).await,
        What::Query(options) => query::run(&options).await,
        What::Rebuild(options) => rebuild::run(&options).await,
    }
}
