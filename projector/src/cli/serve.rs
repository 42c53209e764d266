//! The commands of the service itself.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::Result;
use chrono::Utc;
use leadpulse_service::{config::Config, health::Health, http, shutdown, telemetry};
use tracing::info;

use crate::{run::Projector, store};

#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
pub(super) fn report_good(config: &Config) -> ExitCode {
    let boards: usize = config.orgs.iter().map(|org| org.boards.len()).sum();
    println!("ok: {} orgs, {boards} mapped boards", config.orgs.len());
    ExitCode::SUCCESS
}

pub(super) async fn migrate(config: &Config) -> Result<()> {
    telemetry::init(&config.log)?;
    store::migrate(&store::pool(&config.postgres)?).await?;
    info!("the schema is up to date");
    Ok(())
}

pub(super) async fn serve(config: Config, file: PathBuf) -> Result<()> {
    telemetry::init(&config.log)?;
    let health = Health::new("projector", telemetry::metrics()?);
    let listener = http::bind(config.projector.listen, "projector.listen").await?;
    let stop = shutdown::on_signals()?;
    let projector = Projector::build(config, health.clone(), Arc::new(Utc::now)).await?;
    let projector = projector.reading_again(file);
    let http = http::serve_router(listener, health.routes(), http::Limits::default(), stop.clone());
    let server = tokio::spawn(http);
    projector.run(&stop).await;
    health.drain();
    server.await??;
    Ok(())
}
