//! The live projection's own reader, lanes and worker, on tables in another schema: what keeps the
//! live tables exact brings the new ones up to the stream's end.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use async_nats::jetstream::stream::Stream;
use chrono::Utc;
use leadpulse_service::config::Config;
use sqlx::PgPool;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Duration, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Worker,
    lane::{self, Lane, LaneSettings, Progress, Routes},
    mapping::Mapping,
    reader::{self, Seen},
    store,
};

/// How long lanes and worker may take to commit what they hold.
const FINISH: Duration = Duration::from_secs(5);

pub(super) struct CatchUp {
    pool: PgPool,
    tasks: JoinSet<Result<()>>,
    halt: CancellationToken,
    progress: Arc<Progress>,
}

impl CatchUp {
    /// Begins where the tables of the pool's schema stand.
    pub(super) async fn start(
        config: &Config,
        mapping: &Arc<Mapping>,
        pool: &PgPool,
        stream: &Stream,
        seen: &Seen,
        fence: i64,
    ) -> Result<Self> {
        let lanes = config.projector.lanes;
        let position = store::open_positions(pool, &seen.identity, lanes, fence).await?;
        let applied = position.applied();
        seen.check(applied)?;
        let progress = Arc::new(Progress::new(&position.lanes));
        let (mut tasks, halt) = (JoinSet::new(), CancellationToken::new());
        let mut senders = Vec::new();
        for (number, from) in (0..).zip(position.lanes) {
            let settings = LaneSettings {
                number,
                fence,
                position: from,
                mapping: Arc::clone(mapping),
                parked_leads_limit: i64::from(config.projector.parked_leads_limit),
                cached_leads: lane::CACHED_LEADS,
            };
            let (sender, receiver) = mpsc::channel(lane::QUEUE);
            let lane = Lane::open(settings, pool.clone(), Arc::clone(&progress)).await?;
            tasks.spawn(async move { Ok(lane.run(receiver).await?) });
            senders.push(sender);
        }
        let (routes, token) = (Routes::new(senders), halt.clone());
        let (stream, identity) = (stream.clone(), seen.identity.clone());
        tasks.spawn(
            async move { Ok(reader::read(&stream, &identity, applied, &routes, token).await?) },
        );
        let worker = Worker::new(
            pool.clone(),
            fence,
            &config.orgs,
            Arc::clone(&progress),
            Arc::new(Utc::now),
            usize::try_from(config.projector.agents_memory_mib)? << 20,
        );
        let token = halt.clone();
        tasks.spawn(async move { Ok(worker.run(token).await?) });
        Ok(Self { pool: pool.clone(), tasks, halt, progress })
    }

    pub(super) fn applied(&self) -> u64 {
        self.progress.applied()
    }

    /// Do the tables have everything up to here, AgentMetrics included?
    pub(super) async fn has(&mut self, seq: u64) -> Result<bool> {
        if let Some(ended) = self.tasks.try_join_next() {
            ended.context("a task of the catch-up panicked")??;
            bail!("the catch-up ended by itself");
        }
        if self.progress.applied() < seq {
            return Ok(false);
        }
        // Under traffic there are always marks of later events; the swap takes them along.
        let marks = "select exists (select from agent_dirty
                     where seq <= $1 or seq = 9223372036854775807)";
        let marked: bool =
            sqlx::query_scalar(marks).bind(i64::try_from(seq)?).fetch_one(&self.pool).await?;
        Ok(!marked)
    }

    /// Ends it; what was taken is committed. Gives the position up to which the tables have everything.
    pub(super) async fn stop(mut self) -> Result<u64> {
        self.halt.cancel();
        let finishing = async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.context("a task of the catch-up panicked")??;
            }
            Ok(self.progress.applied())
        };
        match timeout(FINISH, finishing).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the new tables were not committed in time"),
        }
    }
}
