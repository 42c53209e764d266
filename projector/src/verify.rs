//! `projector verify`: the stream folded beside the tables, at one sequence, while the projection goes
//! on. Says that every row and field is what the stream says, or names what is not.
//!
//! One snapshot of the tables says where the lanes stood; each lead is folded up to the position of
//! its lane, so that nothing has to be stopped. AgentMetrics are computed again for the instant at
//! which their rows were computed; agents that wait for their turn are counted and left out.

mod agents;
pub mod command;
mod events;
mod leads;
mod letters;
mod report;
mod users;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use async_nats::jetstream::stream::Stream;
use leadpulse_service::config::Config;
use sqlx::{PgConnection, PgPool};

use crate::{
    aside::aside,
    lane::BUCKETS,
    ops::Tools,
    reader::{self, Seen, range::Select},
    rebuild::Report,
    refold::{Pace, Refold},
    store::{self, LeftOut, Position},
};
pub use report::{Difference, Event, Verdict};

/// What is compared. Nothing named is everything.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    pub org: Option<String>,
    pub board: Option<i64>,
    /// About so many leads: those of some buckets, chosen at random.
    pub sample: Option<u32>,
}

/// What both sides of the comparison are made from.
struct Ground<'a> {
    tools: &'a Tools,
    scope: &'a Scope,
    stream: Stream,
    seen: Seen,
    position: Position,
    left_out: LeftOut,
    report: Report,
}

/// Compares, and says what differs. Nothing is changed.
pub async fn verify(config: Arc<Config>, scope: Scope, report: Report) -> Result<Verdict> {
    let own = Arc::clone(&config);
    aside(&config, move || async move {
        let tools = Tools::connect(own).await?;
        compare(&tools, &scope, report).await
    })
    .await
}

async fn compare(tools: &Tools, scope: &Scope, report: Report) -> Result<Verdict> {
    tools.check_schema().await?;
    let (stream, seen) = tools.stream().await?;
    let mut snapshot = open_snapshot(&tools.pool).await?;
    let position = store::positions(&mut snapshot, &seen.identity).await?;
    ensure!(!position.lanes.is_empty(), "nothing was projected yet");
    // What the lanes have applied since the first look is in the stream, too.
    let seen = reader::look(&stream).await?;
    let ground = Ground {
        tools,
        scope,
        stream,
        position,
        left_out: LeftOut::load(&mut snapshot).await?,
        seen,
        report,
    };
    let mut verdict = ground.compare(&mut snapshot).await?;
    snapshot.rollback().await?;
    events::attach(&ground, &mut verdict).await?;
    Ok(verdict)
}

/// As a reader opens its view: a rebuild's swap falls before it or after it.
async fn open_snapshot(
    pool: &PgPool,
) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, sqlx::Error> {
    store::begin_as(
        pool,
        "begin isolation level repeatable read read only;
         set local idle_in_transaction_session_timeout = 0; set local statement_timeout = 0;
         lock table lead_fact, agent_metrics, monday_user in access share mode",
    )
    .await
}

impl Ground<'_> {
    async fn compare(&self, snapshot: &mut PgConnection) -> Result<Verdict> {
        let own = self.tools.mapping.hash();
        let made_with = store::known_mapping(&mut *snapshot).await?;
        let seq = self.position.farthest();
        let mut verdict = Verdict {
            seq,
            other_mapping: made_with.filter(|hash| *hash != own),
            ..Verdict::default()
        };
        for position in &self.position.lanes {
            if let Err(fault) = self.seen.check(*position) {
                verdict.note(Difference::whole(
                    "position",
                    position.to_string(),
                    fault.to_string(),
                ));
                return Ok(verdict);
            }
        }
        let refold = Refold {
            stream: &self.stream,
            identity: &self.seen.identity,
            from: self.seen.first.max(1),
            position: self.position.clone(),
            mapping: &self.tools.mapping,
            left_out: &self.left_out,
            select: Select {
                org: self.scope.org.clone(),
                board: self.scope.board,
                ..Select::default()
            },
            buckets: self.buckets(snapshot).await?,
            memory: usize::try_from(self.tools.config.projector.rebuild_memory_mib)? << 20,
        };
        let whole = self.scope.board.is_none() && self.scope.sample.is_none();
        let mut agents = agents::Agents::load(self, snapshot).await?;
        let mut users = users::Users::default();
        let mut next = refold.buckets.start;
        while next < refold.buckets.end {
            let pass = refold.pass(next, self).await?;
            next = pass.buckets.end;
            verdict.passes += 1;
            verdict.peak_bytes = verdict.peak_bytes.max(pass.peak_bytes);
            leads::compare(self, snapshot, &pass, &mut verdict).await?;
            if whole {
                agents.add(self, &pass);
                users.add(&pass);
            }
            letters::unreadable(&pass, &mut verdict);
        }
        if whole {
            agents.compare(self, &mut verdict);
            users.compare(self, snapshot, &mut verdict).await?;
            letters::compare(self, snapshot, &mut verdict).await?;
        }
        Ok(verdict)
    }

    /// The buckets of about so many leads as were asked for.
    async fn buckets(&self, snapshot: &mut PgConnection) -> Result<std::ops::Range<u64>> {
        let Some(sample) = self.scope.sample else { return Ok(0..BUCKETS) };
        let leads: i64 =
            sqlx::query_scalar("select count(*) from lead_fact").fetch_one(snapshot).await?;
        let leads = u64::try_from(leads).unwrap_or(0).max(1);
        let wanted = (u64::from(sample) * BUCKETS).div_ceil(leads).clamp(1, BUCKETS);
        let start = rand::random_range(0..=BUCKETS - wanted);
        Ok(start..start + wanted)
    }

    fn takes(&self, org_id: &str, board_id: i64) -> bool {
        self.scope.org.as_deref().is_none_or(|org| org == org_id)
            && self.scope.board.is_none_or(|board| board == board_id)
    }
}

impl Pace for Ground<'_> {
    fn at(&self, seq: u64) {
        (self.report)("folding", seq, self.position.farthest());
    }

    fn rest(&self) -> Duration {
        Duration::ZERO
    }
}
