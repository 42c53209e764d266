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

use std::{collections::HashSet, time::Duration};

use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::stream::Stream;
use leadpulse_service::config::Config;
use secrecy::ExposeSecret;
use sqlx::{PgConnection, PgPool, Row};
use tokio::time::timeout;

use crate::{
    lane::BUCKETS,
    mapping::Mapping,
    reader::{self, Seen, range::Select},
    rebuild::Report,
    refold::{Pace, Refold},
    store::{self, LeftOut, PROJECTION, StreamIdentity},
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
    config: &'a Config,
    mapping: Mapping,
    scope: &'a Scope,
    stream: Stream,
    seen: Seen,
    positions: Vec<u64>,
    left_out: LeftOut,
    report: Report,
}

/// Compares, and says what differs. Nothing is changed.
pub async fn verify(config: &Config, scope: &Scope, report: Report) -> Result<Verdict> {
    let pool = store::pool(&config.postgres).context("the Postgres URL can't be used")?;
    let stream = find_stream(config).await?;
    let seen = reader::look(&stream).await?;
    let mut snapshot = open_snapshot(&pool).await?;
    let positions = positions(&mut snapshot, &seen.identity).await?;
    // What the lanes have applied since the first look is in the stream, too.
    let seen = reader::look(&stream).await?;
    let ground = Ground {
        config,
        mapping: Mapping::of(config),
        scope,
        stream,
        positions,
        left_out: LeftOut::load(&mut snapshot).await?,
        seen,
        report,
    };
    let mut verdict = ground.compare(&mut snapshot).await?;
    snapshot.rollback().await?;
    events::attach(&ground, &mut verdict).await?;
    Ok(verdict)
}

async fn find_stream(config: &Config) -> Result<Stream> {
    let connecting = async_nats::ConnectOptions::new()
        .name("leadpulse verify")
        .connect(config.nats.url.expose_secret());
    let client = timeout(Duration::from_secs(5), connecting).await.context("nats: no answer")??;
    Ok(reader::find(&async_nats::jetstream::new(client)).await?)
}

/// As a reader opens its view: a rebuild's swap falls before it or after it.
async fn open_snapshot(
    pool: &PgPool,
) -> Result<sqlx::Transaction<'static, sqlx::Postgres>, sqlx::Error> {
    pool.begin_with(
        "begin isolation level repeatable read read only;
         set local idle_in_transaction_session_timeout = 0; set local statement_timeout = 0;
         lock table lead_fact, agent_metrics, monday_user in access share mode",
    )
    .await
}

/// Where the lanes stand in this snapshot.
async fn positions(snapshot: &mut PgConnection, identity: &StreamIdentity) -> Result<Vec<u64>> {
    let rows = sqlx::query(
        "select seq, stream_created_at from checkpoint where projection = $1 order by lane",
    )
    .bind(PROJECTION)
    .fetch_all(snapshot)
    .await?;
    ensure!(!rows.is_empty(), "nothing was projected yet");
    let mut positions = Vec::new();
    for row in rows {
        let created_at: chrono::DateTime<chrono::Utc> = row.try_get(1)?;
        ensure!(
            created_at == identity.created_at,
            "the tables are of the stream that was created at {created_at}, not of the present one"
        );
        positions.push(u64::try_from(row.try_get::<i64, _>(0)?).unwrap_or(0));
    }
    Ok(positions)
}

impl Ground<'_> {
    async fn compare(&self, snapshot: &mut PgConnection) -> Result<Verdict> {
        let own = self.mapping.hash();
        let made_with: Option<String> =
            sqlx::query_scalar("select hash from projection_mapping where projection = $1")
                .bind(PROJECTION)
                .fetch_optional(&mut *snapshot)
                .await?;
        let seq = self.positions.iter().copied().max().unwrap_or(0);
        let mut verdict = Verdict {
            seq,
            other_mapping: made_with.filter(|hash| *hash != own),
            ..Verdict::default()
        };
        for position in &self.positions {
            if let Err(fault) = self.seen.check(*position) {
                verdict.note(Difference::whole(
                    "position",
                    position.to_string(),
                    fault.to_string(),
                ));
                return Ok(verdict);
            }
        }
        let left_out: HashSet<u64> =
            self.left_out.waiting.union(&self.left_out.skipped).copied().collect();
        let refold = Refold {
            stream: &self.stream,
            identity: &self.seen.identity,
            from: self.seen.first.max(1),
            positions: self.positions.clone(),
            mapping: &self.mapping,
            left_out: &left_out,
            select: Select {
                org: self.scope.org.clone(),
                board: self.scope.board,
                ..Select::default()
            },
            buckets: self.buckets(snapshot).await?,
            memory: usize::try_from(self.config.projector.rebuild_memory_mib)? << 20,
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
        (self.report)("folding", seq, self.positions.iter().copied().max().unwrap_or(0));
    }

    fn rest(&self) -> Duration {
        Duration::ZERO
    }
}
