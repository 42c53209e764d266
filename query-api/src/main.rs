//! The life of `query-api`: what it is asked, what it needs, what it did.

use std::process::ExitCode;

use clap::Parser;
use leadpulse_service::{cli::UNUSABLE, config::Config};
use query_api::{
    auth,
    cli::{Cli, Command},
    serve,
};

/// An answer is many small headers that come and go on all threads: docs/benchmarks.md has the share.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli.config.path) {
        Ok(config) => config,
        Err(unusable) => {
            eprintln!("error: {unusable}");
            return ExitCode::from(UNUSABLE);
        }
    };
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(config).await,
        Command::CheckConfig => check_config(&config),
        Command::Keys { command } => auth::manage(&config, command).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
fn check_config(config: &Config) -> anyhow::Result<()> {
    println!("ok: {} orgs", config.orgs.len());
    Ok(())
}
