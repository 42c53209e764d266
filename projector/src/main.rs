//! `projector`: stream → read models.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Result;
use chrono::Utc;
use clap::{Parser, Subcommand};
use leadpulse_service::{config::Config, health::Health, http, shutdown, telemetry};
use projector::{
    rebuild::{self, command::Manner},
    run::Projector,
    store, verify,
};
use tracing::info;

/// Folds the stream of webhooks into the read models LeadFact and AgentMetrics.
#[derive(Debug, Parser)]
#[command(version, after_help = "Exit codes: 0 done, 1 failed, 2 bad configuration or usage.")]
struct Cli {
    /// The configuration of all services.
    #[arg(long, env = "LEADPULSE_CONFIG", default_value = "leadpulse.toml", global = true)]
    config: PathBuf,
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Answer every question with yes.
    #[arg(long, global = true)]
    yes: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Project until stopped (the default). Any number may run: one is active, the others stand by.
    Serve,
    /// Bring the database's schema up to date and exit.
    Migrate,
    /// Report all that is wrong with the configuration, each with its place.
    CheckConfig,
    #[command(subcommand)]
    Rebuild(rebuild::command::Command),
    Verify(verify::command::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    let cli = Cli::parse();
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(unusable) => {
            eprintln!("error: {unusable}");
            return ExitCode::from(2);
        }
    };
    let outcome = match cli.command.unwrap_or(Command::Serve) {
        Command::CheckConfig => return report_good(&config),
        Command::Migrate => migrate(&config).await,
        Command::Serve => serve(config, cli.config).await,
        Command::Rebuild(command) => {
            let manner = Manner { json: cli.json, yes: cli.yes, who: who() };
            rebuild::command::run(config, command, &manner).await
        }
        Command::Verify(command) => {
            let manner = Manner { json: cli.json, yes: cli.yes, who: who() };
            match verify::command::run(&config, command, &manner).await {
                Ok(false) => return ExitCode::FAILURE,
                outcome => outcome.map(|_| ()),
            }
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn who() -> String {
    std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned())
}

#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
fn report_good(config: &Config) -> ExitCode {
    let boards: usize = config.orgs.iter().map(|org| org.boards.len()).sum();
    println!("ok: {} orgs, {boards} mapped boards", config.orgs.len());
    ExitCode::SUCCESS
}

async fn migrate(config: &Config) -> Result<()> {
    telemetry::init(&config.log)?;
    store::migrate(&store::pool(&config.postgres)?).await?;
    info!("the schema is up to date");
    Ok(())
}

async fn serve(config: Config, file: PathBuf) -> Result<()> {
    telemetry::init(&config.log)?;
    let health = Health::new("projector", telemetry::metrics()?);
    let listener = http::bind(config.projector.listen, "projector.listen").await?;
    let stop = shutdown::on_signals()?;
    let projector = Projector::build(config, health.clone(), Arc::new(Utc::now)).await?;
    let projector = projector.reading_again(file);
    let http = http::serve(listener, health.routes(), http::Limits::default(), stop.clone());
    let server = tokio::spawn(http);
    projector.run(&stop).await;
    health.drain();
    server.await??;
    Ok(())
}
