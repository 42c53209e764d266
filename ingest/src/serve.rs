//! From a checked configuration to a drained end.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use leadpulse_service::{
    health::Health,
    http::{self as connections, Limits},
    shutdown, telemetry,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    http::{self, Door, body::Room},
    publish::Publisher,
    quarantine::Quarantine,
    source::reload,
    stream::Broker,
    webhook::Meters,
};

/// A request's head is small; monday.com's token is the longest header.
const HEADER_BYTES: usize = 32 * 1024;

/// Serves until a signal says stop; the configuration at `path` is read again when it changes.
pub fn run(path: PathBuf) -> Result<()> {
    let (files, read) = reload::read(&path);
    let (config, secrets) = read?;
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
        let (fresh, sources) = watch::channel(Arc::new(secrets.sources));
        let door = Door {
            sources,
            publisher: Publisher::new(broker.clone(), &config.ingest).await?,
            quarantine: Quarantine::new(broker.clone(), secrets.quarantine_key),
            meters: Meters::new(),
            read_within: config.ingest.read_within,
            room: Room::new(config.ingest.body_memory),
        };
        let limits = Limits {
            connections: config.ingest.max_connections,
            header_timeout: config.ingest.read_within,
            header_bytes: HEADER_BYTES,
            ..Limits::default()
        };
        tokio::spawn(not_ready_once_stopped(stop.clone(), health.clone()));
        tokio::spawn(reload::keep_fresh(path, files, fresh));
        let service = http::service(door, &health);
        tokio::select! {
            served = connections::serve(listener, service, limits, stop) => Ok(served?),
            broken = broker.watch(health) => Err(broken.into()),
        }
    })
}

async fn not_ready_once_stopped(stop: CancellationToken, health: Health) {
    stop.cancelled().await;
    health.drain();
}
