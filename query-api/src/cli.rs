//! The command line.

use clap::{Parser, Subcommand};
use leadpulse_service::cli::ConfigFile;

use crate::auth::Scope;

/// Answers sales dashboards from the read models.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 failed, 2 bad configuration or usage.")]
pub struct Cli {
    #[command(flatten)]
    pub config: ConfigFile,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer until stopped (the default).
    Serve,
    /// Report all that is wrong with the configuration, each with its place.
    CheckConfig,
    /// API keys of the orgs.
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
}

#[derive(Debug, Subcommand)]
pub enum Keys {
    /// Make a key. Only the key goes to stdout; it is shown this once and never stored.
    Create {
        /// An org of the configuration.
        #[arg(long, required_unless_present = "instance")]
        org: Option<String>,
        /// For the operators' commands of the whole instance (`/ops/instance`), and for no org's figures.
        #[arg(long, conflicts_with_all = ["org", "scopes"])]
        instance: bool,
        /// Who or what uses it.
        #[arg(long)]
        name: String,
        /// What it may do; repeatable. Without any: everything.
        #[arg(long = "scope")]
        scopes: Vec<Scope>,
        /// Days until it expires. Without: never.
        #[arg(long)]
        expires_in_days: Option<u16>,
    },
    /// List the keys, as one line each: prefix, org, state, name, scopes, last use.
    List {
        /// Only this org's.
        #[arg(long)]
        org: Option<String>,
    },
    /// Make a new key like this one, with as long a life; the old one goes on for a while.
    Rotate {
        /// The prefix that `list` shows.
        prefix: String,
        /// Hours for which the old key is still good.
        #[arg(long, default_value_t = 24)]
        grace_hours: u16,
    },
    /// End a key for good.
    Revoke {
        /// The prefix that `list` shows.
        prefix: String,
    },
}
