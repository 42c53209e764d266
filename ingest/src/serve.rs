//! From a checked configuration to a drained end.

use std::sync::Arc;

use anyhow::{Context, Result};
use leadpulse_service::{
    config::Config,
    health::{Health, Need},
    http as connections, shutdown, telemetry,
};

use crate::{
    http::{self, Door},
    publish::Publisher,
    source::Sources,
    stream::Broker,
};

/// Serves until a signal says stop.
pub fn run(config: Config, sources: Sources) -> Result<()> {
    telemetry::init(&config.log)?;
    let metrics = telemetry::metrics()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime can't start")?;
    runtime.block_on(async {
        let listener = connections::bind(config.ingest.listen, "ingest.listen").await?;
        let stop = shutdown::on_signals().context("signals can't be watched")?;
        let health = Health::new("ingest", metrics);
        let broker = Broker::connect(&config.nats).await?;
        tokio::spawn(broker.clone().watch(health.dependency("nats", Need::Required)));
        let door =
            Door { sources: Arc::new(sources), publisher: Publisher::new(broker, &config.ingest) };
        let draining = (stop.clone(), health.clone());
        tokio::spawn(async move {
            draining.0.cancelled().await;
            draining.1.drain();
        });
        let router = http::router(door, &health);
        connections::serve(listener, router, connections::Limits::default(), stop).await?;
        Ok(())
    })
}
