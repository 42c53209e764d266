//! The connection to NATS, kept by itself: `ingest` starts without a broker, is not ready then, and
//! recovers when one comes. The streams are made from the definitions in `nats/streams` where they are
//! missing, and never changed behind anybody's back where they are not.

use std::time::{Duration, Instant};

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
use leadpulse_service::{config, health::Dependency};
use secrecy::ExposeSecret;
use tokio::time::timeout;
use tracing::{info, warn};

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
    definitions: [Config; 2],
}

impl Broker {
    /// Begins to connect; that there is no server yet is no error.
    pub async fn connect(config: &config::Nats) -> Result<Self> {
        let replicas = usize::try_from(config.replicas)?;
        let definitions = [streams::events(replicas)?, streams::quarantine(replicas)?];
        let client =
            options().connect(addresses(config)?).await.context("the NATS client can't start")?;
        let jetstream = ContextBuilder::new()
            .timeout(FORGET_AFTER)
            .ack_timeout(FORGET_AFTER)
            .max_ack_inflight(UNBOUNDED)
            .backpressure_on_inflight(false)
            .build(client.clone());
        Ok(Self { client, jetstream, definitions })
    }

    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Keeps the health of the broker up to date, for ever.
    pub async fn watch(self, health: Dependency) {
        let mut was_up = false;
        loop {
            let began = Instant::now();
            let seen = match timeout(LOOK_WITHIN, self.look()).await {
                Ok(seen) => seen,
                Err(_) => Err("the broker does not answer".to_owned()),
            };
            match seen {
                Ok(detail) => {
                    if !was_up {
                        info!(%detail, "the broker is here");
                    }
                    was_up = true;
                    health.up(Some(began.elapsed()), detail);
                }
                Err(reason) => {
                    if was_up {
                        warn!(%reason, "the broker is away");
                    }
                    was_up = false;
                    health.down(reason);
                }
            }
            tokio::time::sleep(if was_up { LOOK_EVERY } else { LOOK_AGAIN_AFTER }).await;
        }
    }

    /// Is there a server, and has it the streams? Those that are missing are made.
    async fn look(&self) -> Result<String, String> {
        if !self.is_connected() {
            return Err("not connected".to_owned());
        }
        for definition in &self.definitions {
            self.find_or_create(definition).await?;
        }
        Ok(format!("nats-server {}", self.client.server_info().version))
    }

    async fn find_or_create(&self, definition: &Config) -> Result<(), String> {
        let name = &definition.name;
        let missing = match self.jetstream.get_stream(name).await {
            Ok(_) => return Ok(()),
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
            Ok(_) => {
                info!(stream = %name, replicas = definition.num_replicas, "stream created");
                Ok(())
            }
            Err(error) => Err(format!("the stream {name} can't be created: {error}")),
        }
    }
}

fn options() -> ConnectOptions {
    ConnectOptions::new()
        .name("ingest")
        .retry_on_initial_connect()
        .connection_timeout(CONNECT_WITHIN)
        .ping_interval(PING)
        .reconnect_delay_callback(|attempts| {
            let doubled = Duration::from_millis(10).saturating_mul(1 << attempts.min(6));
            if attempts <= 1 { Duration::ZERO } else { doubled.min(RECONNECT_EVERY) }
        })
        .event_callback(|event| async move {
            match event {
                Event::Connected => info!("connected to NATS"),
                Event::Disconnected => warn!("disconnected from NATS"),
                Event::ServerError(error) => warn!(%error, "NATS reports an error"),
                _ => {}
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
