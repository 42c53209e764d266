//! AgentMetrics, exact without polling: recomputed when an event touched the agent, and when the clock
//! alone takes a lead into one of its windows or out of it (`valid_until`).

pub mod figures;
mod load;
mod save;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use leadpulse_service::config::Org;
use sqlx::{Connection, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    lane::Progress,
    store::{AGENTS, WriteError},
};
use figures::figures;

/// A touched agent is recomputed at once, and then at most once in this time.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// While the lanes are behind, the figures are of no use yet and take Postgres from the lanes: after each
/// step the worker rests for so many times its length …
const REST_BEHIND: u32 = 9;
/// … and never longer than this.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Marks taken by one transaction: all there are, mostly, since one agent has many of them under load.
const MARKS: i64 = 50_000;
/// Agents recomputed by one statement.
const AGENTS_AT_ONCE: usize = 200;
/// Agents whose instant has come, taken by one transaction: at a full hour it may come for all.
const EXPIRED: i64 = 2000;
/// The worker looks at least this often, whatever it was told.
const LOOK: Duration = Duration::from_secs(1);

/// The time of the computation. Tests turn it.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// Agents by org.
type Agents = BTreeMap<String, BTreeSet<i64>>;

pub struct Worker {
    pool: PgPool,
    fence: i64,
    orgs: BTreeMap<String, Org>,
    progress: Arc<Progress>,
    clock: Clock,
}

impl Worker {
    pub fn new(
        pool: PgPool,
        fence: i64,
        orgs: &[Org],
        progress: Arc<Progress>,
        clock: Clock,
    ) -> Self {
        let orgs = orgs.iter().map(|org| (org.id.clone(), org.clone())).collect();
        Self { pool, fence, orgs, progress, clock }
    }

    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WriteError> {
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
    pub async fn step(&self) -> Result<bool, WriteError> {
        let started = Instant::now();
        let mut connection = self.pool.acquire().await?;
        let mut tx = connection.begin().await?;
        sqlx::query("set transaction isolation level repeatable read").execute(&mut *tx).await?;
        self.guard(&mut tx).await?;
        let now = (self.clock)();
        let mut agents = take_marks(&mut tx).await?;
        add_expired(&mut tx, &mut agents, now).await?;
        if agents.is_empty() {
            return Ok(false);
        }
        crash_point!("agents-marks");
        let mut count = 0;
        for (org_id, ids) in &agents {
            let Some(org) = self.orgs.get(org_id) else { continue };
            let ids: Vec<i64> = ids.iter().copied().collect();
            for ids in ids.chunks(AGENTS_AT_ONCE) {
                recompute(&mut tx, org, ids, now).await?;
                count += ids.len();
            }
        }
        crash_point!("agents-commit");
        tx.commit().await?;
        crash_point!("agents-committed");
        debug!(agents = count, "agents recomputed");
        metrics::histogram!("projector_agents_step_seconds")
            .record(started.elapsed().as_secs_f64());
        metrics::counter!("projector_agents_recomputed_total")
            .increment(u64::try_from(count).unwrap_or(0));
        self.progress.versions.touch(agents.into_keys());
        Ok(true)
    }

    async fn guard(&self, connection: &mut PgConnection) -> Result<(), WriteError> {
        let held = sqlx::query(
            "update checkpoint set updated_at = now() where projection = $1 and lane = 0 and fence = $2",
        )
        .bind(AGENTS)
        .bind(self.fence)
        .execute(connection)
        .await?;
        if held.rows_affected() == 1 { Ok(()) } else { Err(WriteError::FenceLost) }
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

async fn take_marks(connection: &mut PgConnection) -> Result<Agents, sqlx::Error> {
    let marks: Vec<(String, i64)> = sqlx::query_as(
        "delete from agent_dirty where id in (select id from agent_dirty order by id limit $1)
         returning org_id, agent_id",
    )
    .bind(MARKS)
    .fetch_all(connection)
    .await?;
    let mut agents = Agents::new();
    for (org_id, agent_id) in marks {
        agents.entry(org_id).or_default().insert(agent_id);
    }
    Ok(agents)
}

/// A window's first instant is the row's last one: at `valid_until` itself the row is wrong.
async fn add_expired(
    connection: &mut PgConnection,
    agents: &mut Agents,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let expired: Vec<(String, i64)> = sqlx::query_as(
        "select org_id, agent_id from agent_metrics where valid_until <= $1 order by valid_until limit $2",
    )
    .bind(now)
    .bind(EXPIRED)
    .fetch_all(connection)
    .await?;
    for (org_id, agent_id) in expired {
        agents.entry(org_id).or_default().insert(agent_id);
    }
    Ok(())
}

pub(crate) async fn recompute(
    connection: &mut PgConnection,
    org: &Org,
    agents: &[i64],
    now: DateTime<Utc>,
) -> Result<(), WriteError> {
    let leads = load::leads_of(connection, org, agents, now).await?;
    let mut rows = Vec::new();
    let mut gone = Vec::new();
    for agent in agents {
        let Some(leads) = leads.get(agent).filter(|leads| leads.totals.leads > 0) else {
            gone.push(*agent);
            continue;
        };
        for days in &org.windows {
            let figures = figures(leads, *days, org.hot, now.timestamp_micros());
            rows.push(save::Row {
                agent_id: *agent,
                days: *days,
                totals: leads.totals.clone(),
                figures,
            });
        }
    }
    save::replace(connection, &org.id, &rows, &gone, now).await?;
    Ok(())
}
