//! AgentMetrics, exact without polling: recomputed when an event touched the agent, and when the clock
//! alone takes a lead into one of its windows or out of it (`valid_until`). The leads of the agents that
//! were computed last stay in memory.

pub mod figures;
pub mod lead;
mod load;
mod marks;
mod memory;
mod save;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use leadpulse_service::config::Org;
use sqlx::{PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    lane::Progress,
    store::{self, AGENTS, WriteError},
    version::Topic,
};
use figures::figures;
use lead::Totals;
pub use load::{ASSIGNED, BY_KEY, WON};
use marks::Changed;
pub use marks::TAKE_WHOLE;
use memory::Memory;

/// A touched agent is recomputed at once, and then at most once in this time.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// While the lanes are behind, the figures are of no use yet and take Postgres from the lanes: after each
/// step the worker rests for so many times its length …
const REST_BEHIND: u32 = 9;
/// … and never longer than this.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Agents recomputed by one statement.
const AGENTS_AT_ONCE: usize = 200;
/// The worker looks at least this often, whatever it was told.
const LOOK: Duration = Duration::from_secs(1);

/// The time of the computation. Tests turn it.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

pub struct Worker {
    pool: PgPool,
    fence: i64,
    orgs: BTreeMap<String, Org>,
    progress: Arc<Progress>,
    clock: Clock,
    memory: Memory,
}

impl Worker {
    /// `memory` is what it may keep of agents' leads, in bytes.
    pub fn new(
        pool: PgPool,
        fence: i64,
        orgs: &[Org],
        progress: Arc<Progress>,
        clock: Clock,
        memory: usize,
    ) -> Self {
        let orgs = orgs.iter().map(|org| (org.id.clone(), org.clone())).collect();
        Self { pool, fence, orgs, progress, clock, memory: Memory::new(memory) }
    }

    /// Works until told to stop.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), WriteError> {
        self.adopt_configuration().await?;
        loop {
            let started = Instant::now();
            let worked = self.step().await?;
            let took = started.elapsed();
            if !worked {
                let due = self.until_next_expiry().await?;
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = self.progress.marked.notified() => {}
                    () = tokio::time::sleep(due) => {}
                }
            }
            // There is something new under load always: without a rest after each step, the worker would
            // compute the same agents again and again for one event each.
            let rest = match self.progress.is_behind() {
                true => (took * REST_BEHIND).clamp(DEBOUNCE, LONGEST_REST),
                false => DEBOUNCE.saturating_sub(started.elapsed()).max(took.min(DEBOUNCE)),
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Windows or the hot rule may have changed since the rows were written: all agents are computed
    /// again, and windows that are gone go. These marks hold no read back.
    async fn adopt_configuration(&self) -> Result<(), WriteError> {
        sqlx::query(
            "insert into agent_dirty (org_id, agent_id, seq)
             select distinct org_id, agent_id, 9223372036854775807 from agent_metrics",
        )
        .execute(&self.pool)
        .await?;
        for org in self.orgs.values() {
            let windows: Vec<i32> =
                org.windows.iter().filter_map(|days| i32::try_from(*days).ok()).collect();
            sqlx::query("delete from agent_metrics where org_id = $1 and window_days <> all ($2)")
                .bind(&org.id)
                .bind(windows)
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// One transaction; false if there was nothing to do.
    ///
    /// Repeatable read: the marks that go and the facts that are read are of one snapshot, so a fact
    /// that is not seen has a mark that stays. The fenced row comes first and keeps a second worker out.
    pub async fn step(&mut self) -> Result<bool, WriteError> {
        let started = Instant::now();
        let mut tx = store::begin_as(&self.pool, "begin isolation level repeatable read").await?;
        // What is changed here counts only if the transaction does: until then the worker holds nothing.
        let mut memory = self.memory.take().of_table(self.guard(&mut tx).await?);
        let now = (self.clock)();
        let mut agents = marks::take(&mut tx).await?;
        marks::add_expired(&mut tx, &mut agents, now).await?;
        if agents.is_empty() {
            self.memory = memory;
            return Ok(false);
        }
        crash_point!("agents-marks");
        let mut count = 0;
        let mut touched = Vec::new();
        for (org_id, changed) in agents {
            if let Some(org) = self.orgs.get(&org_id) {
                let changed: Vec<_> = changed.into_iter().collect();
                for agents in changed.chunks(AGENTS_AT_ONCE) {
                    compute(&mut tx, org, agents, now, &mut memory).await?;
                    count += agents.len();
                }
            }
            touched.push(org_id);
        }
        crash_point!("agents-commit");
        tx.commit().await?;
        crash_point!("agents-committed");
        memory.report();
        self.memory = memory;
        debug!(agents = count, "agents recomputed");
        metrics::histogram!("projector_agents_step_seconds")
            .record(started.elapsed().as_secs_f64());
        metrics::counter!("projector_agents_recomputed_total")
            .increment(u64::try_from(count).unwrap_or(0));
        self.progress.versions.touch(touched, Topic::Metrics);
        Ok(true)
    }

    /// Holds the fence, and says which table LeadFact is.
    async fn guard(&self, connection: &mut PgConnection) -> Result<i64, WriteError> {
        let held: Option<i64> = sqlx::query_scalar(
            "update checkpoint set updated_at = now() where projection = $1 and lane = 0 and fence = $2
             returning to_regclass('lead_fact')::oid::bigint",
        )
        .bind(AGENTS)
        .bind(self.fence)
        .fetch_optional(connection)
        .await?;
        held.ok_or(WriteError::FenceLost)
    }

    async fn until_next_expiry(&self) -> Result<Duration, WriteError> {
        let (next,): (Option<DateTime<Utc>>,) =
            sqlx::query_as("select min(valid_until) from agent_metrics")
                .fetch_one(&self.pool)
                .await?;
        let until = next.map(|next| (next - (self.clock)()).to_std().unwrap_or(Duration::ZERO));
        Ok(until.unwrap_or(LOOK).min(LOOK))
    }
}

/// Computes agents of one org from all of their leads, as the transaction sees them.
pub(crate) async fn recompute(
    connection: &mut PgConnection,
    org: &Org,
    agents: &[i64],
    now: DateTime<Utc>,
) -> Result<(), WriteError> {
    let agents: Vec<_> = agents.iter().map(|agent| (*agent, Changed::default())).collect();
    compute(connection, org, &agents, now, &mut Memory::new(0)).await
}

async fn compute(
    connection: &mut PgConnection,
    org: &Org,
    agents: &[(i64, Changed)],
    now: DateTime<Utc>,
    memory: &mut Memory,
) -> Result<(), WriteError> {
    memory.refresh(connection, &org.id, agents).await?;
    let mut rows = Vec::new();
    let mut gone = Vec::new();
    for (agent, _) in agents {
        let (leads, industries) = memory.leads(&org.id, *agent);
        if leads.is_empty() {
            gone.push(*agent);
            continue;
        }
        let totals = Totals::of(leads);
        for days in &org.windows {
            rows.push(save::Row {
                agent_id: *agent,
                days: *days,
                totals: totals.clone(),
                figures: figures(leads, industries, *days, org.hot, now.timestamp_micros()),
            });
        }
        // A thousand agents are a tenth of a second of this thread.
        tokio::task::yield_now().await;
    }
    crash_point!("agents-read");
    save::replace(connection, &org.id, &rows, &gone, now).await?;
    crash_point!("agents-written");
    memory.shrink();
    Ok(())
}
