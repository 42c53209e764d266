//! The life of `ingest`: what it is asked, what it needs, what it did.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use ingest::{
    cli::{Cli, Command},
    operate, serve,
    source::Secrets,
};
use leadpulse_service::{
    cli::UNUSABLE,
    config::{Config, Unusable},
};

/// A webhook is some fifty small allocations, made on one thread and freed on another: with the system's
/// allocator they are a fifth of the time (docs/benchmarks.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<Unusable>() { ExitCode::from(UNUSABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let path = cli.config.path;
    let config = || Config::load(&path);
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(path),
        Command::CheckConfig => operate::check_config(&Secrets::resolve(&config()?)?),
        Command::Streams { action } => operate::streams(&config()?, &action),
        Command::Quarantine { action } => operate::quarantine(&config()?, action),
    }
}
