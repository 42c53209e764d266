//! The life of `ingest`: what it is asked, what it needs, what it did.

use std::process::ExitCode;

use clap::Parser;
use ingest::{
    cli::{Cli, Command},
    operate,
    quarantine::SealingKey,
    serve,
    source::Sources,
};
use leadpulse_service::config::{Config, process_environment};

/// Bad configuration or usage; clap uses the same.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(unusable) => return refuse(&unusable),
    };
    let sources = match Sources::resolve(&config, &process_environment) {
        Ok(sources) => sources,
        Err(unusable) => return refuse(&unusable),
    };
    let key = config.ingest.quarantine_key.as_ref();
    let key = match SealingKey::resolve(key, &process_environment) {
        Ok(key) => key,
        Err(unusable) => return refuse(&unusable),
    };
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(cli.config, config, sources, key),
        Command::CheckConfig => check_config(&sources),
        Command::Streams { action } => operate::streams(&config, &action),
        Command::Quarantine { action } => operate::quarantine(&config, &sources, key, action),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn refuse(unusable: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {unusable}");
    ExitCode::from(UNUSABLE)
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn check_config(sources: &Sources) -> anyhow::Result<()> {
    println!("ok: {} sources, all secrets found", sources.len());
    Ok(())
}
