//! The connection to NATS, kept by itself: `ingest` starts without a broker, is not ready then, and
//! recovers when one comes. The streams are made from the definitions in `nats/streams` where they are
//! missing; where they differ, that is said, and `ingest streams apply` changes them.

mod durability;
mod monitor;
pub mod plan;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use async_nats::{
    Client, ConnectOptions, Event, ServerAddr,
    connection::State,
    jetstream::{
        self,
        context::{ContextBuilder, GetStreamErrorKind},
        stream::Config,
    },
};
use leadpulse_nats::streams;
use leadpulse_service::{
    config,
    health::{Health, Need},
};
use secrecy::ExposeSecret;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use durability::{Finding, Seen};

/// A server that does not answer a ping for two of these intervals is given up for the next connection.
const PING: Duration = Duration::from_secs(2);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const RECONNECT_EVERY: Duration = Duration::from_millis(500);
/// How often the health of the broker is looked at, and how long it may take to answer.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// An acknowledgement that nobody waits for any more is forgotten after this time.
const FORGET_AFTER: Duration = Duration::from_secs(5);
/// Publishes are bounded by the permits in front of them (`ingest.max_in_flight`), not by the client.
const UNBOUNDED: usize = 1 << 20;

#[derive(Clone)]
pub struct Broker {
    client: Client,
    jetstream: jetstream::Context,
    /// The stream of record, and the quarantine.
    definitions: [Config; 2],
    config: config::Nats,
    /// The promises that the configuration requires hold on this connection.
    admitted: Arc<AtomicBool>,
    /// How many connections there were: each may lead to another server, or to one with other settings.
    connections: watch::Receiver<u64>,
}

/// The server does not keep what the configuration requires of it.
#[derive(Debug, thiserror::Error)]
#[error("NATS breaks a promise that `nats.require` asks for: {0}")]
pub struct BrokenPromise(String);

impl Broker {
    /// Begins to connect; that there is no server yet is no error.
    pub async fn connect(config: &config::Nats) -> Result<Self> {
        let definitions = definitions(config)?;
        let admitted = Arc::new(AtomicBool::new(config.require.is_empty()));
        let (counter, connections) = watch::channel(0);
        let options = options(counter, Arc::clone(&admitted), config.require.is_empty());
        let client =
            options.connect(addresses(config)?).await.context("the NATS client can't start")?;
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

    /// There is a connection, and what is required of its server holds.
    pub fn takes_events(&self) -> bool {
        self.is_connected() && self.admitted.load(Ordering::Relaxed)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Keeps the health of the broker up to date, for ever; ends only if the first server that is met
    /// breaks a required promise.
    pub async fn watch(self, health: Health) -> BrokenPromise {
        let dependency = health.dependency("nats", Need::Required);
        let (mut was_up, mut ever_up, mut looked_at) = (false, false, 0);
        let mut connections = self.connections.clone();
        loop {
            let began = Instant::now();
            // A server that was away for less than the time between two looks was away all the same.
            let connection = *connections.borrow_and_update();
            let new = !was_up || connection != looked_at;
            let seen = match timeout(LOOK_WITHIN, self.look(&health, new)).await {
                Ok(seen) => seen,
                Err(_) => Err(Away::Silent("the broker does not answer".to_owned())),
            };
            match seen {
                Ok(()) => {
                    (was_up, ever_up, looked_at) = (true, true, connection);
                    let version = &self.client.server_info().version;
                    dependency.up(Some(began.elapsed()), format!("nats-server {version}"));
                }
                Err(Away::Breaks(promise)) if !ever_up => return BrokenPromise(promise),
                Err(Away::Breaks(reason) | Away::Silent(reason)) => {
                    if was_up {
                        warn!(%reason, "the broker is away");
                    }
                    was_up = false;
                    self.admitted.store(self.config.require.is_empty(), Ordering::Relaxed);
                    dependency.down(reason);
                }
            }
            let pause = if was_up { LOOK_EVERY } else { LOOK_AGAIN_AFTER };
            tokio::select! {
                () = sleep(pause) => {}
                Ok(()) = connections.changed() => {}
            }
        }
    }

    /// Is there a server, and has it the streams? Those that are missing are made. On a new connection
    /// the promises are looked at, too.
    async fn look(&self, health: &Health, new: bool) -> Result<(), Away> {
        if !self.is_connected() {
            return Err(Away::Silent("not connected".to_owned()));
        }
        let [events, quarantine] = &self.definitions;
        let got = self.find_or_create(events).await.map_err(Away::Silent)?;
        let quarantine_got = self.find_or_create(quarantine).await.map_err(Away::Silent)?;
        if !new {
            return Ok(());
        }
        for drift in durability::drift(quarantine, &quarantine_got) {
            warn!(stream = %quarantine.name, "{drift}; see `ingest streams plan`");
        }
        let sync = match &self.config.monitor {
            None => None,
            Some(address) => match monitor::ask(address).await {
                Ok(sync) => Some(sync),
                Err(reason) => {
                    warn!(%reason, "unknown how often the disk is synced");
                    None
                }
            },
        };
        let version = &self.client.server_info().version;
        self.admit(health, &Seen { version, asked: events, got: &got, sync })
    }

    /// Says what an acknowledgement is worth here, and whether that is enough.
    fn admit(&self, health: &Health, seen: &Seen<'_>) -> Result<(), Away> {
        let findings = durability::findings(seen);
        health.fact("durability", durability::fact(seen, &findings));
        info!("durability: {}", durability::line(seen));
        let mut broken = Vec::new();
        for Finding { promise, fault } in findings {
            let Some(fault) = fault else { continue };
            let (name, required) = (promise.name(), self.config.require.contains(&promise));
            warn!(promise = name, required, "{name}: {fault}");
            if required {
                broken.push(format!("{name}: {fault}"));
            }
        }
        if !broken.is_empty() {
            return Err(Away::Breaks(broken.join("; ")));
        }
        self.admitted.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn find_or_create(&self, definition: &Config) -> Result<Config, String> {
        let name = &definition.name;
        let missing = match self.jetstream.get_stream(name).await {
            Ok(stream) => return Ok(stream.cached_info().config.clone()),
            Err(error) => error.kind(),
        };
        let absent = matches!(
            missing,
            GetStreamErrorKind::JetStream(error)
                if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
        );
        if !absent {
            return Err(format!("the stream {name} does not answer"));
        }
        match self.jetstream.create_stream(definition).await {
            Ok(stream) => {
                info!(stream = %name, replicas = definition.num_replicas, "stream created");
                Ok(stream.cached_info().config.clone())
            }
            Err(error) => Err(format!("the stream {name} can't be created: {error}")),
        }
    }
}

/// The stream of record, and the quarantine, as this installation wants them.
fn definitions(config: &config::Nats) -> Result<[Config; 2]> {
    let replicas = usize::try_from(config.replicas)?;
    Ok([streams::events(replicas)?, streams::quarantine(replicas)?])
}

/// Why no event can be published now.
enum Away {
    Silent(String),
    Breaks(String),
}

/// What is required is not known of a new connection, so nothing is admitted on it before the next look.
fn options(
    connections: watch::Sender<u64>,
    admitted: Arc<AtomicBool>,
    requires_nothing: bool,
) -> ConnectOptions {
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
            let (connections, admitted) = (Arc::clone(&connections), Arc::clone(&admitted));
            async move {
                match event {
                    Event::Connected => {
                        admitted.store(requires_nothing, Ordering::Relaxed);
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
