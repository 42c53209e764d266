//! The command line.

use clap::{Parser, Subcommand};
use leadpulse_service::cli::ConfigFile;

use crate::quarantine::show::Filter;

/// Receives monday.com webhooks, verifies them, and answers 200 once the stream has them.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    pub config: ConfigFile,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Receive webhooks until SIGTERM or SIGINT (the default).
    Serve,
    /// Report all problems of the configuration, each with its place, and find every secret.
    CheckConfig,
    /// Compare the streams with their definitions, or make them so.
    Streams {
        #[command(subcommand)]
        action: Streams,
    },
    /// Look at refused webhooks, and let them in once the cause is mended.
    Quarantine {
        #[command(subcommand)]
        action: Quarantine,
    },
}

#[derive(Debug, Subcommand)]
pub enum Quarantine {
    /// List what was refused.
    List {
        #[command(flatten)]
        filter: Filter,
        /// One JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Show one entry with its body.
    Show {
        /// Its number in the list.
        entry: u64,
    },
    /// Verify entries again with the secrets of now, and publish those that pass.
    Release {
        #[command(flatten)]
        filter: Filter,
        /// Only say what would be released.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Streams {
    /// Show what is missing and what differs; change nothing.
    Plan,
    /// Create what is missing; with --yes, also change what differs.
    Apply {
        /// Change streams that hold data.
        #[arg(long)]
        yes: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  ingest                                   serve, with ./leadpulse.toml
  ingest check-config --config prod.toml   what is wrong with prod.toml?
  ingest streams plan                      do the streams look as they should?
  ingest quarantine release --since 2h --reason auth_signature --dry-run
                                           what would pass, now that the secret is mended?
  NATS_URL=nats://10.0.0.5:4222 ingest     the environment wins over the file

A webhook's URL is https://HOST/webhooks/monday/SOURCE, SOURCE being the `key` of one of the
configuration's [[orgs.sources]]; with `verify = \"token\"` the token follows it: …/SOURCE/TOKEN.

Exit codes: 0 done, 1 failed, 2 the configuration or the command line is wrong.";
