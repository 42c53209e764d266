//! The life of the projector: wait for what it needs, take the lease, project until something ends it,
//! and begin again from the committed positions. Whatever fails, nothing is lost and nothing counts
//! twice, so every failure has the same cure: once more, after a pause.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use leadpulse_service::{
    config::Config,
    health::{Dependency, Health, Need},
};
use secrecy::ExposeSecret;
use sqlx::PgPool;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    agents::{Clock, Worker},
    lane::{self, Lane, Progress},
    lease::Lease,
    mapping::Mapping,
    reader::{self, ReadError},
    store::{self, OpenError, WriteError},
};

/// A standby asks this often whether the lease is free.
const STANDBY: Duration = Duration::from_secs(1);
/// Pauses between attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

pub struct Projector {
    config: Config,
    mapping: Arc<Mapping>,
    pool: PgPool,
    jetstream: jetstream::Context,
    health: Health,
    postgres: Dependency,
    nats: Dependency,
    projection: Dependency,
    clock: Clock,
}

/// Why one attempt to project ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the lease was lost")]
    LeaseLost,
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx::Error),
    #[error("a task panicked")]
    Panicked,
}

impl Projector {
    pub async fn build(config: Config, health: Health, clock: Clock) -> Result<Self> {
        let pool = store::pool(&config.postgres).context("the Postgres URL can't be used")?;
        let client = async_nats::ConnectOptions::new()
            .name("leadpulse projector")
            .retry_on_initial_connect()
            .connect(config.nats.url.expose_secret())
            .await
            .context("the NATS URL can't be used")?;
        Ok(Self {
            mapping: Arc::new(Mapping::of(&config)),
            pool,
            jetstream: jetstream::new(client),
            postgres: health.dependency("postgres", Need::Required),
            nats: health.dependency("nats", Need::Required),
            projection: health.dependency("projection", Need::Required),
            health,
            config,
            clock,
        })
    }

    /// Projects until told to stop.
    pub async fn run(&self, stop: &CancellationToken) {
        let mut pause = PAUSE.0;
        while !stop.is_cancelled() {
            let started = tokio::time::Instant::now();
            match self.attempt(stop).await {
                Ok(()) => continue,
                Err(error) => self.report(&error),
            }
            if started.elapsed() > PAUSE.1 {
                pause = PAUSE.0;
            }
            let jitter = rand::random_range(0.5..1.5);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause.mul_f64(jitter)) => {}
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn report(&self, ended: &Ended) {
        let cause = std::error::Error::source(ended).map(ToString::to_string);
        let cause = cause.unwrap_or_default();
        match ended {
            Ended::Read(ReadError::NoStream) => {
                self.nats.down(ended.to_string());
                info!("waiting: {ended}");
            }
            Ended::Read(error) if error.is_fault() => {
                self.projection.down(ended.to_string());
                error!("fault: {ended}");
            }
            Ended::Open(OpenError::Recreated { .. }) => {
                self.projection.down(ended.to_string());
                error!("fault: {ended}");
            }
            Ended::Read(_) => {
                self.nats.down(ended.to_string());
                warn!("projection interrupted: {ended}");
            }
            Ended::Postgres(_) | Ended::Open(_) | Ended::Write(WriteError::Transient(_)) => {
                self.postgres.down(ended.to_string());
                warn!(cause, "projection interrupted: {ended}");
            }
            Ended::Write(_) | Ended::LeaseLost | Ended::Panicked => {
                warn!(cause, "projection interrupted: {ended}");
            }
        }
    }

    /// One turn as standby and then as owner of the lease.
    async fn attempt(&self, stop: &CancellationToken) -> Result<(), Ended> {
        self.migrate().await?;
        let stream = reader::find(&self.jetstream).await?;
        let seen = reader::look(&stream).await?;
        self.nats.up(None, format!("stream {} at {}", seen.identity.name, seen.last));
        let Some(lease) = self.take_lease(stop).await? else { return Ok(()) };
        let outcome = self.project(&lease, &stream, &seen, stop).await;
        if let Err(error) = lease.release(&self.pool).await {
            warn!(%error, "lease not released; a standby waits for its end");
        }
        outcome
    }

    async fn migrate(&self) -> Result<(), Ended> {
        let started = tokio::time::Instant::now();
        match store::migrate(&self.pool).await {
            Ok(()) => {
                self.postgres.up(Some(started.elapsed()), "migrated");
                Ok(())
            }
            Err(sqlx::migrate::MigrateError::Execute(error)) => Err(error.into()),
            Err(error) => Err(sqlx::Error::Configuration(Box::new(error)).into()),
        }
    }

    async fn take_lease(&self, stop: &CancellationToken) -> Result<Option<Lease>, Ended> {
        let mut said = false;
        while !stop.is_cancelled() {
            if let Some(lease) = Lease::take(&self.pool).await? {
                info!(fence = lease.fence, "lease taken, projecting");
                return Ok(Some(lease));
            }
            if !said {
                info!("another projector is active, standing by");
                self.projection.up(None, "standby");
                said = true;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(STANDBY) => {}
            }
        }
        Ok(None)
    }

    /// Owns the projection: reader, lanes, worker and publisher, until the first of them ends.
    async fn project(
        &self,
        lease: &Lease,
        stream: &jetstream::stream::Stream,
        seen: &reader::Seen,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let lanes = self.config.projector.lanes;
        let position =
            store::open_positions(&self.pool, &seen.identity, lanes, lease.fence).await?;
        seen.check(position.applied())?;
        let progress = Arc::new(Progress::new(&position.lanes));
        // A version that a crash kept from being published is published now.
        progress.versions.touch(self.config.orgs.iter().map(|org| org.id.clone()));
        info!(applied_seq = position.applied(), head_seq = seen.last, lanes, "projecting");
        self.projection.up(None, "active");

        let halt = stop.child_token();
        let mut tasks = JoinSet::<Result<(), Ended>>::new();
        let mut senders = Vec::new();
        for (number, from) in (0..lanes).zip(position.lanes.iter().copied()) {
            let (sender, receiver) = mpsc::channel(lane::QUEUE);
            let (pool, mapping) = (self.pool.clone(), Arc::clone(&self.mapping));
            let lane =
                Lane::open(number, lease.fence, from, pool, mapping, Arc::clone(&progress)).await?;
            tasks.spawn(async move { Ok(lane.run(receiver).await?) });
            senders.push(sender);
        }
        let (stream_of_reader, identity, token) =
            (stream.clone(), seen.identity.clone(), halt.clone());
        let applied = position.applied();
        tasks.spawn(async move {
            // The senders go with the reader, and the lanes end when they have committed the rest.
            Ok(reader::read(&stream_of_reader, &identity, applied, &senders, token).await?)
        });
        let worker = Worker::new(
            self.pool.clone(),
            lease.fence,
            &self.config.orgs,
            Arc::clone(&progress),
            Arc::clone(&self.clock),
        );
        let token = halt.clone();
        tasks.spawn(async move { Ok(worker.run(token).await?) });
        let (publisher, pool, token) = (Arc::clone(&progress), self.pool.clone(), halt.clone());
        tasks.spawn(async move { Ok(publisher.versions.publish(&pool, token).await?) });
        let (holder, pool, token) = (lease.clone(), self.pool.clone(), halt.clone());
        tasks.spawn(async move {
            holder.keep(&pool, token.clone()).await;
            if token.is_cancelled() { Ok(()) } else { Err(Ended::LeaseLost) }
        });
        let watched = self.watch(stream.clone(), Arc::clone(&progress), halt.clone());
        tasks.spawn(watched);
        finish(tasks, halt).await
    }

    /// Keeps health and the lag figures true, also when the reader hangs.
    fn watch(
        &self,
        stream: jetstream::stream::Stream,
        progress: Arc<Progress>,
        halt: CancellationToken,
    ) -> impl Future<Output = Result<(), Ended>> + use<> {
        let (health, nats, postgres) =
            (self.health.clone(), self.nats.clone(), self.postgres.clone());
        let pool = self.pool.clone();
        async move {
            let mut caught_up_at = tokio::time::Instant::now();
            loop {
                let started = tokio::time::Instant::now();
                match reader::look(&stream).await {
                    Ok(seen) => {
                        nats.up(
                            Some(started.elapsed()),
                            format!("stream {} at {}", seen.identity.name, seen.last),
                        );
                        let lag = seen.last.saturating_sub(progress.applied());
                        if lag == 0 {
                            caught_up_at = tokio::time::Instant::now();
                        }
                        record(&health, progress.applied(), seen.last, caught_up_at.elapsed());
                    }
                    Err(error) => nats.down(error.to_string()),
                }
                let started = tokio::time::Instant::now();
                match sqlx::query("select 1").execute(&pool).await {
                    Ok(_) => postgres.up(Some(started.elapsed()), "answers"),
                    Err(error) => postgres.down(error.to_string()),
                }
                tokio::select! {
                    () = halt.cancelled() => return Ok(()),
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floats; sequences stay far below 2^53")]
fn record(health: &Health, applied: u64, head: u64, behind_for: Duration) {
    let lag = head.saturating_sub(applied);
    metrics::gauge!("projector_applied_seq").set(applied as f64);
    metrics::gauge!("projector_head_seq").set(head as f64);
    metrics::gauge!("projector_lag_events").set(lag as f64);
    let seconds = if lag == 0 { 0.0 } else { behind_for.as_secs_f64() };
    metrics::gauge!("projector_lag_seconds").set(seconds);
    health.fact("applied_seq", applied);
    health.fact("head_seq", head);
    health.fact("lag_events", lag);
}

/// Waits for the first end, stops the others, and lets them commit what they hold.
async fn finish(
    mut tasks: JoinSet<Result<(), Ended>>,
    halt: CancellationToken,
) -> Result<(), Ended> {
    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        halt.cancel();
        let result = ended.unwrap_or(Err(Ended::Panicked));
        if outcome.is_ok() {
            outcome = result;
        }
    }
    outcome
}
