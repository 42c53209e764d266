//! From a checked configuration to a drained end.

use std::{io, path::PathBuf, sync::Arc};

use anyhow::{Context, Result};
use leadpulse_service::{
    config,
    health::Health,
    http::{self as connections, Limits},
    shutdown, telemetry,
};
use tokio::{net::TcpListener, sync::watch, try_join};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{self, Door, body::Room},
    publish::Publisher,
    quarantine::Quarantine,
    source::reload,
    stream::Broker,
    webhook::{Meters, aside},
};

/// A request's head is small; monday.com's token is the longest header.
const HEADER_BYTES: usize = 32 * 1024;
/// Of the address for operators: a few scrapers and probes.
const ADMIN_CONNECTIONS: usize = 256;

/// Where webhooks are taken in, and where operators look, if that is elsewhere.
struct Listeners {
    webhooks: TcpListener,
    admin: Option<TcpListener>,
}

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
        let listeners = Listeners::bind(&config.ingest).await?;
        let stop = shutdown::on_signals().context("signals can't be watched")?;
        let health = Health::new("ingest", metrics);
        let broker = Broker::connect(&config.nats).await?;
        let (fresh, secrets) = watch::channel(Arc::new(secrets));
        let door = Door {
            publisher: Publisher::new(broker.clone(), &config.ingest).await?,
            quarantine: Quarantine::new(broker.clone(), secrets.clone()),
            secrets,
            meters: Meters::new(),
            read_within: config.ingest.read_within,
            room: Room::new(config.ingest.body_memory),
        };
        tokio::spawn(not_ready_once_stopped(stop.clone(), health.clone()));
        tokio::spawn(reload::keep_fresh(path, files, fresh));
        tokio::select! {
            served = listeners.serve(door, &health, &config.ingest, stop) => Ok(served?),
            broken = broker.watch(health.clone()) => Err(broken.into()),
        }
    })
}

impl Listeners {
    async fn bind(config: &config::Ingest) -> Result<Self> {
        let webhooks = connections::bind(config.listen, "ingest.listen").await?;
        let admin = match config.admin_listen {
            Some(address) => Some(connections::bind(address, "ingest.admin_listen").await?),
            None => None,
        };
        Ok(Self { webhooks, admin })
    }

    /// Operators are answered until the last webhook is: they want to see the end, too.
    async fn serve(
        self,
        door: Door,
        health: &Health,
        config: &config::Ingest,
        stop: CancellationToken,
    ) -> io::Result<()> {
        let limits = Limits {
            connections: config.max_connections,
            header_timeout: config.read_within,
            header_bytes: HEADER_BYTES,
            ..Limits::default()
        };
        let pages = if self.admin.is_some() { health.probes() } else { health.routes() };
        let door = Arc::new(door);
        let service = http::service(Arc::clone(&door), pages);
        let refused = move |head| aside::bad_head(Arc::clone(&door), head);
        let webhooks = connections::serve(self.webhooks, service, refused, limits, stop);
        let Some(admin) = self.admin else {
            return webhooks.await;
        };
        let ended = CancellationToken::new();
        let webhooks = async {
            let _ended = ended.clone().drop_guard();
            webhooks.await
        };
        let limits = Limits { connections: ADMIN_CONNECTIONS, ..limits };
        let admin = connections::serve_router(admin, health.routes(), limits, ended.clone());
        try_join!(webhooks, admin).map(|_| ())
    }
}

async fn not_ready_once_stopped(stop: CancellationToken, health: Health) {
    stop.cancelled().await;
    health.drain();
}
