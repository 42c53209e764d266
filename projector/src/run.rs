//! The life of the projector: wait for what it needs, take the lease, project until something ends it,
//! and begin again from the committed positions. Whatever fails, nothing is lost and nothing counts
//! twice, so every failure has the same cure: once more, after a pause.

mod ended;

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use leadpulse_service::{
    config::Config,
    health::{Dependency, Health, Need},
};
use secrecy::ExposeSecret;
use sqlx::{PgPool, migrate::MigrateError};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    agents::{Clock, Worker},
    lane::{self, Lane, LaneSettings, Progress, Routes},
    lease::Lease,
    mapping::Mapping,
    ops::pause::Pause,
    reader,
    store::{self, Position, SchemaError, WriteError},
    version::Topic,
    watch::Watch,
};
use ended::Ended;

/// A standby asks this often whether the lease is free.
const STANDBY: Duration = Duration::from_millis(500);
/// A pause is looked for this often: it holds within a second.
const PAUSED: Duration = Duration::from_millis(250);
/// Operators' requests are looked for this often.
const RETRIES: Duration = Duration::from_secs(1);
/// How long lanes may take to commit what they hold.
const FINISH: Duration = Duration::from_millis(1500);
/// How long after a signal everything else may take: what then still waits for a server that is away would
/// wait for longer than who sent the signal. The lease ends by itself.
const OVERDUE: Duration = Duration::from_millis(1800);
/// Pauses between attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

pub struct Projector {
    config: Config,
    /// Where the configuration came from, to be read again when the tables were made with another mapping.
    file: Option<PathBuf>,
    mapping: Arc<Mapping>,
    pool: PgPool,
    jetstream: jetstream::Context,
    watch: Arc<Watch>,
    postgres: Dependency,
    nats: Dependency,
    projection: Dependency,
    clock: Clock,
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
        let jetstream = jetstream::new(client);
        let postgres = health.dependency("postgres", Need::Required);
        let nats = health.dependency("nats", Need::Required);
        let projection = health.dependency("projection", Need::Required);
        let watch = Watch {
            pool: pool.clone(),
            jetstream: jetstream.clone(),
            postgres: postgres.clone(),
            nats: nats.clone(),
            health,
        };
        Ok(Self {
            file: None,
            mapping: Arc::new(Mapping::of(&config)),
            pool,
            jetstream,
            watch: Arc::new(watch),
            postgres,
            nats,
            projection,
            config,
            clock,
        })
    }

    /// Lets the projector adopt the mapping that the tables were rebuilt with, from the file as it is then.
    #[must_use]
    pub fn reading_again(self, file: PathBuf) -> Self {
        Self { file: Some(file), ..self }
    }

    /// Projects until told to stop.
    pub async fn run(&self, stop: &CancellationToken) {
        let watch = Arc::clone(&self.watch);
        let token = stop.clone();
        let watching = tokio::spawn(async move { watch.run(token).await });
        let mut pause = PAUSE.0;
        while !stop.is_cancelled() {
            let started = tokio::time::Instant::now();
            let attempt = tokio::select! {
                outcome = self.attempt(stop) => outcome,
                () = overdue(stop) => break,
            };
            match attempt {
                Ok(()) | Err(Ended::Paused) => continue,
                Err(Ended::Write(WriteError::Repaired)) => {
                    info!("{}", WriteError::Repaired);
                    continue;
                }
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
        watching.abort();
    }

    /// One turn as standby and then as owner of the lease.
    async fn attempt(&self, stop: &CancellationToken) -> Result<(), Ended> {
        self.migrate().await?;
        let stream = reader::find(&self.jetstream).await?;
        let seen = reader::look(&stream).await?;
        self.nats.up(None, format!("stream {} at {}", seen.identity.name, seen.last));
        self.wait_while_paused(stop).await?;
        let Some(lease) = self.take_lease(stop).await? else { return Ok(()) };
        let outcome = self.project(&lease, &stream, &seen, stop).await;
        if let Err(ended) = &outcome {
            self.keep_fault(ended, &lease, &seen).await;
        }
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
            Err(SchemaError::Failed(MigrateError::Execute(error))) => Err(error.into()),
            Err(error) => Err(Ended::Schema(error)),
        }
    }

    /// A pause holds whoever would own the projection, also after a restart. The lease stays free.
    async fn wait_while_paused(&self, stop: &CancellationToken) -> Result<(), Ended> {
        let mut said = false;
        while !stop.is_cancelled() {
            let Some(pause) = Pause::find(&self.pool).await? else { break };
            metrics::gauge!("projector_paused").set(1.0);
            self.projection.up(None, pause.to_string());
            if !said {
                info!("{pause}");
                said = true;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSED) => {}
            }
        }
        metrics::gauge!("projector_paused").set(0.0);
        Ok(())
    }

    async fn take_lease(&self, stop: &CancellationToken) -> Result<Option<Lease>, Ended> {
        let mut said = false;
        while !stop.is_cancelled() {
            if Pause::find(&self.pool).await?.is_some() {
                return Ok(None);
            }
            if let Some(lease) = Lease::take(&self.pool, self.config.projector.lease_ttl).await? {
                info!(fence = lease.fence, "lease taken, projecting");
                return Ok(Some(lease));
            }
            if !said {
                info!("another projector is active, standing by");
                said = true;
            }
            match store::find_fault(&self.pool).await? {
                None => self.projection.up(None, "standby"),
                Some(fault) => self.projection.down(fault.what),
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
        let applied = position.applied();
        seen.check(applied)?;
        let progress = Arc::new(Progress::new(&position.lanes));
        // A version that a crash kept from being published is published now.
        let orgs = self.config.orgs.iter().map(|org| org.id.clone());
        progress.versions.touch(orgs, Topic::Leads);
        info!(applied_seq = applied, head_seq = seen.last, lanes, "projecting");
        let (mapping, detail) = self.mapping().await?;

        let halt = stop.child_token();
        let mut tasks = Tasks::new();
        self.say_active(&mut tasks, detail, seen.last, &progress, &halt).await?;
        let routes =
            self.start_lanes(&mut tasks, lease.fence, &position, &progress, &mapping).await?;
        let (reader_stream, identity) = (stream.clone(), seen.identity.clone());
        let (reader_routes, token) = (routes.clone(), halt.clone());
        tasks.spawn(async move {
            Ok(reader::read(&reader_stream, &identity, applied, &reader_routes, token).await?)
        });
        let (pool, token) = (self.pool.clone(), halt.clone());
        // The lanes end when the last of their routes is gone and they have committed the rest.
        let retried = Arc::clone(&mapping);
        tasks.spawn(async move { Ok(hand_on_retries(&pool, &retried, routes, token).await?) });
        let worker = Worker::new(
            self.pool.clone(),
            lease.fence,
            &self.config.orgs,
            Arc::clone(&progress),
            Arc::clone(&self.clock),
            usize::try_from(self.config.projector.agents_memory_mib).unwrap_or(0) << 20,
        );
        let token = halt.clone();
        tasks.spawn(async move { Ok(worker.run(token).await?) });
        let (pool, token) = (self.pool.clone(), halt.clone());
        tasks.spawn(async move { Ok(progress.versions.publish(&pool, token).await?) });
        let (pool, token) = (self.pool.clone(), halt.clone());
        tasks.spawn(async move { end_when_paused(&pool, token).await });
        let (holder, pool, token) = (lease.clone(), self.pool.clone(), halt.clone());
        tasks.spawn(async move {
            holder.keep(&pool, token.clone()).await;
            if token.is_cancelled() { Ok(()) } else { Err(Ended::LeaseLost) }
        });
        finish(tasks, halt).await
    }

    /// The mapping to project with, and what is said of it: the one of this process, or the one in the file
    /// if the tables were rebuilt with it since. What fits neither is said, and mended by a rebuild.
    async fn mapping(&self) -> Result<(Arc<Mapping>, String), Ended> {
        let own = self.mapping.hash();
        let tables = store::mapping_of_tables(&self.pool, &own).await?;
        if tables == own {
            return Ok((Arc::clone(&self.mapping), "active".to_owned()));
        }
        let present = self.file.as_ref().and_then(|file| Config::load(file).ok());
        if let Some(present) = present.map(|config| Mapping::of(&config))
            && present.hash() == tables
        {
            info!(
                mapping = tables,
                "the tables were rebuilt with the mapping in the file, adopted"
            );
            return Ok((Arc::new(present), "active".to_owned()));
        }
        let warning = format!(
            "the read models were made with mapping {tables}, this projector has {own}: \
             `projector rebuild plan` tells what differs"
        );
        warn!("{warning}");
        Ok((Arc::clone(&self.mapping), format!("active; {warning}")))
    }

    async fn start_lanes(
        &self,
        tasks: &mut Tasks,
        fence: i64,
        position: &Position,
        progress: &Arc<Progress>,
        mapping: &Arc<Mapping>,
    ) -> Result<Routes, Ended> {
        let mut senders = Vec::new();
        for (number, from) in (0..).zip(position.lanes.iter().copied()) {
            let settings = LaneSettings {
                number,
                fence,
                position: from,
                mapping: Arc::clone(mapping),
                parked_leads_limit: i64::from(self.config.projector.parked_leads_limit),
                cached_leads: lane::CACHED_LEADS,
            };
            let (sender, receiver) = mpsc::channel(lane::QUEUE);
            let lane = Lane::open(settings, self.pool.clone(), Arc::clone(progress)).await?;
            tasks.spawn(async move { Ok(lane.run(receiver).await?) });
            senders.push(sender);
        }
        Ok(Routes::new(senders))
    }
}

type Tasks = JoinSet<Result<(), Ended>>;

/// Tells the lanes which dead letters an operator wants applied again.
async fn hand_on_retries(
    pool: &PgPool,
    mapping: &Mapping,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), sqlx::Error> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(RETRIES) => {}
        }
        lane::read_again(pool, mapping).await?;
        for key in store::retries_requested(&mut *pool.acquire().await?).await? {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = routes.retry(key) => {}
            }
        }
    }
}

/// Ends the attempt when an operator pauses the projection.
async fn end_when_paused(pool: &PgPool, stop: CancellationToken) -> Result<(), Ended> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(PAUSED) => {}
        }
        if Pause::find(pool).await?.is_some() {
            return Err(Ended::Paused);
        }
    }
}

/// Waits for the first end, stops the others, and lets them commit what they hold, within bounds.
async fn finish(mut tasks: Tasks, halt: CancellationToken) -> Result<(), Ended> {
    let first = match tasks.join_next().await {
        Some(ended) => ended.unwrap_or(Err(Ended::Panicked)),
        None => Ok(()),
    };
    halt.cancel();
    let rest = async {
        let mut outcome = first;
        while let Some(ended) = tasks.join_next().await {
            let result = ended.unwrap_or(Err(Ended::Panicked));
            outcome = outcome.and(result);
        }
        outcome
    };
    match tokio::time::timeout(FINISH, rest).await {
        Ok(outcome) => outcome,
        // What hangs is rolled back by Postgres when its connection goes.
        Err(_) => Err(Ended::Hung),
    }
}

async fn overdue(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(OVERDUE).await;
}
