//! `projector rebuild`: the read models made anew from the stream, beside the live ones, with the
//! mapping of today. Fold in memory → COPY → indexes → check → catch up → swap.
//!
//! Readers never see an empty table: the new tables are made in a schema of their own and take the
//! place of the old ones in one short transaction. The old ones stay in another schema until an
//! operator drops them, and go back by the same way (`rollback`). Where a rebuild stands is a row in
//! the database; whatever ends its process, the next `start` goes on from there.

mod catch_up;
mod check;
pub mod command;
mod fill;
mod keeper;
mod ledger;
mod plan;
mod shadow;
mod swap;

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::stream::Stream;
use leadpulse_service::config::Config;
use sqlx::PgPool;
use tokio::time::{sleep, timeout};

use crate::{
    aside::aside,
    mapping::Mapping,
    ops::Tools,
    reader::{self, Seen},
    store,
};
use catch_up::CatchUp;
use keeper::{GIVE_WAY, Keeper};
pub use ledger::{Phase, Rebuild};
pub use plan::Plan;
use shadow::{ARCHIVE, SHADOW};
pub use swap::Swapped;

/// A live projector that is behind by more events than this slows the rebuild down.
const LIVE_LAG: u64 = 2000;
/// What is said while the rebuild rests for it.
const RESTING: &str = "resting: the live projection is behind";
/// How long the shadow tables may take to catch up before a swap.
const CATCH_UP: Duration = Duration::from_secs(600);

/// What an operator is shown while it works: what is being done, how much of it, of how much.
pub type Report = Arc<dyn Fn(&'static str, u64, u64) + Send + Sync>;

/// The tool. Every command is one of its methods.
pub struct Rebuilder {
    config: Arc<Config>,
    mapping: Arc<Mapping>,
    /// The live tables.
    live: PgPool,
    /// The tables that are being made.
    shadow: PgPool,
    stream: Stream,
    seen: Seen,
    report: Report,
}

impl Rebuilder {
    /// The schema must be the one of this binary: a rebuild never migrates.
    pub async fn open(tools: Tools, report: Report) -> Result<Self> {
        tools.check_schema().await?;
        let shadow = store::pool_in(&tools.config.postgres, SHADOW)?;
        let (stream, seen) = tools.stream().await?;
        let Tools { config, mapping, pool: live, .. } = tools;
        Ok(Self { config, mapping, live, shadow, stream, seen, report })
    }

    /// What a rebuild would do now.
    pub async fn plan(&self) -> Result<Plan> {
        plan::plan(self).await
    }

    /// The last rebuild, if there was one.
    pub async fn status(&self) -> Result<Option<Rebuild>> {
        Ok(ledger::last(&self.live).await?)
    }

    /// Builds the shadow tables, or goes on where a former process stopped, until they are ready to swap.
    pub async fn start(&self, who: &str, accept_loss: bool) -> Result<Rebuild> {
        let (config, report) = (Arc::clone(&self.config), Arc::clone(&self.report));
        let who = who.to_owned();
        aside(&self.config, move || async move {
            let tool = Self::open(Tools::connect(config).await?, report).await?;
            tool.make_ready(&who, accept_loss).await
        })
        .await
    }

    async fn make_ready(&self, who: &str, accept_loss: bool) -> Result<Rebuild> {
        let mut rebuild = match ledger::active(&self.live).await? {
            Some(active) => {
                self.check_same(&active).await?;
                ledger::take_over(&self.live, &active, who).await?
            }
            None => self.begin(who, accept_loss).await?,
        };
        let keeper = Keeper::start(self, &rebuild).await;
        keeper.unless_lost(Box::pin(self.build(&mut rebuild, &keeper))).await?;
        Ok(rebuild)
    }

    async fn begin(&self, who: &str, accept_loss: bool) -> Result<Rebuild> {
        ensure!(
            self.seen.first <= 1 || accept_loss,
            "the stream begins at {}: what came before is gone and would be missing from every row; \
             --accept-loss rebuilds from what is left",
            self.seen.first
        );
        if shadow::exists(&self.live, ARCHIVE).await? {
            bail!(
                "the tables of the last rebuild are still kept: `projector rebuild drop-archive` drops them, \
                 `projector rebuild rollback` takes them back"
            );
        }
        let views = shadow::views(&self.live).await?;
        ensure!(
            views.is_empty(),
            "{} would go on reading the old tables after a swap: drop the views, and make them again afterwards",
            views.join(", ")
        );
        let rebuild = ledger::begin(&self.live, &self.seen, &self.mapping.hash(), who).await?;
        crash_point!("rebuild-begun");
        Ok(rebuild)
    }

    async fn build(&self, rebuild: &mut Rebuild, keeper: &Keeper) -> Result<()> {
        loop {
            match rebuild.phase {
                Phase::Folding => fill::fold(self, rebuild, keeper).await?,
                Phase::Indexing => fill::index(self, rebuild, keeper).await?,
                Phase::Checking => check::check(self, rebuild).await?,
                Phase::CatchingUp => {
                    keeper.give_way(GIVE_WAY).await;
                    shadow::leave_out(&mut *self.shadow.acquire().await?, SHADOW).await?;
                    let mut catching = self.catch_up(&self.shadow, rebuild.attempt).await?;
                    let head = reader::look(&self.stream).await?.last;
                    let settled = self.settle(&mut catching, head).await;
                    catching.stop().await?;
                    settled?;
                    crash_point!("rebuild-caught-up");
                    shadow::analyse(&self.shadow, &["agent_metrics", "monday_user"]).await?;
                    ledger::enter(&self.live, rebuild, Phase::Ready).await?;
                }
                Phase::Ready => return Ok(()),
                Phase::Swapped | Phase::RolledBack | Phase::Aborted => {
                    bail!("this rebuild is over")
                }
            }
        }
    }

    /// Lets the present projection take the shadow tables.
    pub async fn swap(&self, who: &str) -> Result<Swapped> {
        let Some(active) = ledger::active(&self.live).await? else {
            bail!("there is no rebuild to swap in: `projector rebuild start` makes one");
        };
        ensure!(
            active.phase == Phase::Ready,
            "the rebuild is {}: `projector rebuild start` goes on with it",
            active.phase
        );
        self.check_same(&active).await?;
        let rebuild = ledger::take_over(&self.live, &active, who).await?;
        let keeper = Keeper::start(self, &rebuild).await;
        keeper.unless_lost(Box::pin(swap::swap(self, &rebuild, SHADOW))).await
    }

    /// Puts the old tables back; what was rebuilt becomes the archive. They are caught up before, unless
    /// they were made with another mapping than today's: then the projector does it afterwards.
    pub async fn rollback(&self, who: &str) -> Result<Swapped> {
        ensure!(
            shadow::exists(&self.live, ARCHIVE).await?,
            "there is no archive to go back to: it was dropped, or nothing was swapped"
        );
        if let Some(active) = ledger::active(&self.live).await? {
            bail!("rebuild {} is {}: abort it first", active.id, active.phase);
        }
        let Some(last) = ledger::last_swapped(&self.live).await? else {
            bail!("nothing was swapped yet");
        };
        let rebuild = ledger::take_over(&self.live, &last, who).await?;
        let keeper = Keeper::start(self, &rebuild).await;
        keeper.unless_lost(Box::pin(swap::swap(self, &rebuild, ARCHIVE))).await
    }

    /// Ends the present rebuild and drops what it made.
    pub async fn abort(&self) -> Result<Rebuild> {
        let Some(mut active) = ledger::active(&self.live).await? else {
            bail!("there is no rebuild to abort");
        };
        ledger::abort(&self.live, &mut active).await?;
        shadow::drop(&self.live, SHADOW).await?;
        Ok(active)
    }

    /// Drops the old tables; there is no rollback afterwards.
    pub async fn drop_archive(&self) -> Result<()> {
        ensure!(shadow::exists(&self.live, ARCHIVE).await?, "there is no archive");
        Ok(shadow::drop(&self.live, ARCHIVE).await?)
    }

    /// A rebuild goes on only with the stream, the mapping and the schema that it began with.
    async fn check_same(&self, rebuild: &Rebuild) -> Result<()> {
        ensure!(
            rebuild.stream_created_at == self.seen.identity.created_at,
            "the stream was recreated since this rebuild began: `projector rebuild abort`, and start again"
        );
        ensure!(
            rebuild.mapping_hash == self.mapping.hash(),
            "the mapping was changed since this rebuild began: `projector rebuild abort`, and start again"
        );
        let version = ledger::schema_version(&self.live).await?;
        ensure!(
            rebuild.schema_version == version,
            "the schema was migrated since this rebuild began: `projector rebuild abort`, and start again"
        );
        Ok(())
    }

    async fn catch_up(&self, pool: &PgPool, fence: i64) -> Result<CatchUp> {
        let seen = reader::look(&self.stream).await?;
        ensure!(seen.identity == self.seen.identity, "the stream was recreated just now");
        CatchUp::start(&self.config, &self.mapping, pool, &self.stream, &seen, fence).await
    }

    /// Waits until the tables have this sequence, AgentMetrics included.
    async fn settle(&self, catching: &mut CatchUp, seq: u64) -> Result<()> {
        let from = catching.applied();
        let waiting = async {
            while !catching.has(seq).await? {
                (self.report)(
                    "catching up",
                    catching.applied().min(seq) - from.min(seq),
                    seq - from.min(seq),
                );
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(CATCH_UP, waiting)
            .await
            .context("the new tables do not catch up with the stream")?
    }
}
