//! The life of `ingest`: what it is asked, what it needs, what it did.

use std::process::ExitCode;

use clap::Parser;
use ingest::{
    cli::{Cli, Command, Streams},
    serve, source,
    stream::plan,
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
    let sources = match source::Sources::resolve(&config, &process_environment) {
        Ok(sources) => sources,
        Err(unusable) => return refuse(&unusable),
    };
    let done = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve::run(cli.config, config, sources),
        Command::CheckConfig => check_config(&sources),
        Command::Streams { action: Streams::Plan } => tool(plan::run(&config.nats, false, false)),
        Command::Streams { action: Streams::Apply { yes } } => {
            tool(plan::run(&config.nats, true, yes))
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that ends by itself.
fn tool(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

fn refuse(unusable: &dyn std::error::Error) -> ExitCode {
    eprintln!("error: {unusable}");
    ExitCode::from(UNUSABLE)
}

#[expect(clippy::print_stdout, reason = "this is what the command is for")]
fn check_config(sources: &source::Sources) -> anyhow::Result<()> {
    println!("ok: {} sources, all secrets found", sources.len());
    Ok(())
}
