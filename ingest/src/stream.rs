//! The connection to NATS, kept by itself: `ingest` starts without a broker, is not ready then, and
//! recovers when one comes. The streams are made from the definitions in `nats/streams` where they are
//! missing; where they differ, that is said, and `ingest streams apply` changes them.

mod durability;
mod followed;
mod monitor;
pub mod plan;
mod watch;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use async_nats::{
    Client, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{self, context::ContextBuilder, stream::Config},
};
use leadpulse_nats::streams;
use leadpulse_service::config;
use secrecy::ExposeSecret;
use tokio::sync::watch as latest;
use tracing::{info, warn};

/// A server that does not answer a ping for two of these intervals is given up for the next connection.
const PING: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// An acknowledgement that nobody waits for any more is forgotten after this time.
const FORGET_AFTER: Duration = Duration::from_secs(5);
/// Publishes are bounded by the permits in front of them (`ingest.max_in_flight`), not by the client.
const UNBOUNDED: usize = 1 << 20;
/// The number of no connection.
const NO_CONNECTION: u64 = u64::MAX;

#[derive(Clone)]
pub struct Broker {
    client: Client,
    jetstream: jetstream::Context,
    /// The stream of record, and the quarantine.
    definitions: [Config; 2],
    config: config::Nats,
    /// The connection on which the promises hold that the configuration requires.
    admitted: Arc<AtomicU64>,
    /// How many connections there were: each may lead to another server, or to one with other settings.
    connections: latest::Receiver<u64>,
}

/// The server does not keep what the configuration requires of it.
#[derive(Debug, thiserror::Error)]
#[error("NATS breaks a promise that `nats.require` asks for: {0}")]
pub struct BrokenPromise(String);

impl Broker {
    /// Begins to connect; that there is no server yet is no error.
    pub async fn connect(config: &config::Nats) -> Result<Self> {
        let definitions = definitions(config)?;
        let admitted = Arc::new(AtomicU64::new(NO_CONNECTION));
        let (counter, connections) = latest::channel(0);
        let client = options(counter)
            .connect(addresses(config)?)
            .await
            .context("the NATS client can't start")?;
        let jetstream = ContextBuilder::new()
            .timeout(FORGET_AFTER)
            .ack_timeout(FORGET_AFTER)
            .max_ack_inflight(UNBOUNDED)
            .backpressure_on_inflight(false)
            .build(client.clone());
        Ok(Self { client, jetstream, definitions, config: config.clone(), admitted, connections })
    }

    fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// There is a connection, and what is required of its server holds. Of a new connection that is not
    /// known before the next look.
    pub fn takes_events(&self) -> bool {
        let admitted = || self.admitted.load(Ordering::Relaxed) == *self.connections.borrow();
        self.is_connected() && (self.config.require.is_empty() || admitted())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }
}

/// The stream of record, and the quarantine, as this installation wants them.
fn definitions(config: &config::Nats) -> Result<[Config; 2]> {
    let replicas = usize::try_from(config.replicas)?;
    Ok([streams::events(replicas)?, streams::quarantine(replicas)?])
}

fn options(connections: latest::Sender<u64>) -> ConnectOptions {
    let connections = Arc::new(connections);
    ConnectOptions::new()
        .name("ingest")
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_WITHIN)
        .ping_interval(PING)
        .reconnect_delay_callback(|attempts| {
            let doubled = Duration::from_millis(10).saturating_mul(1 << attempts.min(6));
            if attempts <= 1 { Duration::ZERO } else { doubled.min(RECONNECT_EVERY) }
        })
        .event_callback(move |event| {
            let connections = Arc::clone(&connections);
            async move {
                match event {
                    Event::Connected => {
                        connections.send_modify(|count| *count += 1);
                        info!("connected to NATS");
                    }
                    Event::Disconnected => warn!("disconnected from NATS"),
                    Event::ServerError(error) => warn!(%error, "NATS reports an error"),
                    _ => {}
                }
            }
        })
}

/// The URL may hold a password, so its text never gets into an error.
fn addresses(config: &config::Nats) -> Result<Vec<ServerAddr>> {
    config
        .url
        .expose_secret()
        .split(',')
        .map(|address| {
            address.trim().parse().ok().context("`nats.url` holds something that is no address")
        })
        .collect()
}
