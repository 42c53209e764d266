//! Dead letters: what is parked and why, applied again in order, or given up with a reason.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use tokio::time::{Instant, sleep};

use super::{Tools, pause};
use crate::store::{self, PROJECTION, SKIPPED};

/// The projector has this long to answer the requests of one second.
const ANSWERED: Duration = Duration::from_secs(60);
/// Refused leads that a report names.
const NAMED: usize = 100;

/// Which letters are meant. What is not named is all.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct Filter {
    /// Of this org.
    #[arg(long)]
    pub org: Option<String>,
    /// Of this board.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub board: Option<i64>,
    /// Of this item.
    #[arg(long = "lead", value_name = "ITEM", allow_hyphen_values = true)]
    pub item: Option<i64>,
    /// Of this kind of event, such as `update_column_value`.
    #[arg(long)]
    pub kind: Option<String>,
    /// With these words in the error.
    #[arg(long, value_name = "WORDS")]
    pub error: Option<String>,
    /// With this sequence; repeatable.
    #[arg(long, value_name = "SEQ")]
    pub seq: Vec<i64>,
}

impl Filter {
    /// Does it leave anything out?
    pub fn narrows(&self) -> bool {
        let named = [&self.org, &self.kind, &self.error].into_iter().any(Option::is_some);
        named || self.board.is_some() || self.item.is_some() || !self.seq.is_empty()
    }
}

/// A statement about the waiting letters that a [`Filter`] means; binds $1 to $7.
macro_rules! waiting {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " projection = $1 and resolved_at is null and ($2::text is null or org_id = $2)
              and ($3::bigint is null or board_id = $3) and ($4::bigint is null or item_id = $4)
              and ($5::text is null or kind = $5)
              and ($6::text is null or position(lower($6) in lower(reason)) > 0)
              and (cardinality($7::bigint[]) = 0 or seq = any ($7)) ",
            $after
        )
    };
}
/// Binds what [`waiting`] names.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {
        $query
            .bind(PROJECTION)
            .bind(&$filter.org)
            .bind($filter.board)
            .bind($filter.item)
            .bind(&$filter.kind)
            .bind(&$filter.error)
            .bind(&$filter.seq)
    };
}

/// Letters with one error on one board.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Group {
    pub error: String,
    pub org_id: Option<String>,
    pub board_id: Option<i64>,
    pub letters: i64,
    pub leads: i64,
    pub first_seq: i64,
    pub last_seq: i64,
    pub first_parked_at: DateTime<Utc>,
    pub last_parked_at: DateTime<Utc>,
}

/// The waiting letters by error, most first.
pub async fn list(tools: &Tools, filter: &Filter) -> Result<Vec<Group>, sqlx::Error> {
    let query = sqlx::query_as(waiting!(
        "select reason as error, org_id, board_id, count(*) as letters,
             count(distinct (board_id, item_id)) filter (where item_id is not null) as leads,
             min(seq) as first_seq, max(seq) as last_seq,
             min(parked_at) as first_parked_at, max(parked_at) as last_parked_at
         from dead_letter where",
        "group by reason, org_id, board_id order by letters desc, first_seq limit 1000"
    ));
    filtered!(query, filter).fetch_all(&tools.pool).await
}

/// One letter, whole.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    pub seq: i64,
    pub org_id: Option<String>,
    pub board_id: Option<i64>,
    pub item_id: Option<i64>,
    pub event_id: Option<String>,
    pub kind: Option<String>,
    pub error: String,
    pub parked_at: DateTime<Utc>,
    pub retry_requested_at: Option<DateTime<Utc>>,
    pub resolved_at: Option<DateTime<Utc>>,
    pub resolution: Option<String>,
    pub trace_id: Option<String>,
    /// The message as JSON, or as text where it is none.
    pub payload: Value,
    /// Sequences of the lead's letters that wait, in the order in which a retry applies them.
    pub waiting_of_lead: Vec<i64>,
}

/// The letter with this sequence, of one org where one is given.
pub async fn show(tools: &Tools, seq: i64, org_id: Option<&str>) -> Result<Option<Shown>> {
    #[derive(FromRow)]
    struct Letter {
        org_id: Option<String>,
        board_id: Option<i64>,
        item_id: Option<i64>,
        event_id: Option<String>,
        kind: Option<String>,
        reason: String,
        parked_at: DateTime<Utc>,
        retry_requested_at: Option<DateTime<Utc>>,
        resolved_at: Option<DateTime<Utc>>,
        resolution: Option<String>,
        trace_id: Option<uuid::Uuid>,
        payload: Vec<u8>,
    }
    let letter: Option<Letter> = sqlx::query_as(
        "select * from dead_letter
         where projection = $1 and seq = $2 and ($3::text is null or org_id = $3)",
    )
    .bind(PROJECTION)
    .bind(seq)
    .bind(org_id)
    .fetch_optional(&tools.pool)
    .await?;
    let Some(letter) = letter else { return Ok(None) };
    let waiting_of_lead = sqlx::query_scalar(
        "select seq from dead_letter where projection = $1 and org_id = $2 and board_id = $3
             and item_id = $4 and resolved_at is null order by seq",
    )
    .bind(PROJECTION)
    .bind(&letter.org_id)
    .bind(letter.board_id)
    .bind(letter.item_id)
    .fetch_all(&tools.pool)
    .await?;
    let payload = serde_json::from_slice(&letter.payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&letter.payload).into_owned()));
    Ok(Some(Shown {
        seq,
        org_id: letter.org_id,
        board_id: letter.board_id,
        item_id: letter.item_id,
        event_id: letter.event_id,
        kind: letter.kind,
        error: letter.reason,
        parked_at: letter.parked_at,
        retry_requested_at: letter.retry_requested_at,
        resolved_at: letter.resolved_at,
        resolution: letter.resolution,
        trace_id: letter.trace_id.map(|id| id.simple().to_string()),
        payload,
        waiting_of_lead,
    }))
}

/// What a retry or a skip is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, FromRow)]
pub struct Count {
    pub letters: i64,
    pub leads: i64,
}

pub async fn count(tools: &Tools, filter: &Filter) -> Result<Count, sqlx::Error> {
    let query = sqlx::query_as(waiting!(
        "select count(*) as letters,
             count(distinct (org_id, board_id, item_id)) filter (where item_id is not null) as leads
         from dead_letter where",
        ""
    ));
    filtered!(query, filter).fetch_one(&tools.pool).await
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct Retried {
    pub requested: i64,
    pub applied: i64,
    pub refused: i64,
    /// Some of what was refused again, and why.
    pub refusals: Vec<Refusal>,
}

#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Refusal {
    pub seq: i64,
    pub org_id: Option<String>,
    pub board_id: Option<i64>,
    pub item_id: Option<i64>,
    pub error: String,
}

/// Lets the live projection apply the letters again, each lead's in order, `per_second` letters at most.
/// A lead's letters go together: all of a lead that has one which is meant.
pub async fn retry(
    tools: &Tools,
    filter: &Filter,
    per_second: usize,
    watch: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<Retried> {
    ensure!(
        pause::owned(&tools.pool).await?,
        "nobody projects, so nobody would apply them: start `projector`, or `projector resume`"
    );
    let query = sqlx::query_scalar(waiting!(
        "select l.seq from dead_letter l where l.projection = $1 and l.resolved_at is null and exists (
             select from dead_letter meant where (meant.seq = l.seq or (meant.org_id = l.org_id
                 and meant.board_id = l.board_id and meant.item_id = l.item_id)) and meant.seq in (
                 select seq from dead_letter where",
        ")) order by l.org_id, l.board_id, l.item_id, l.seq"
    ));
    let letters: Vec<i64> = filtered!(query, filter).fetch_all(&tools.pool).await?;
    let mut report = Retried::default();
    let total = u64::try_from(letters.len()).unwrap_or(0);
    for letters in letters.chunks(per_second.max(1)) {
        let second = Instant::now();
        request(tools, letters).await?;
        await_answers(tools, letters).await?;
        report.requested += i64::try_from(letters.len()).unwrap_or(0);
        watch(u64::try_from(report.requested).unwrap_or(0), total);
        if u64::try_from(report.requested).unwrap_or(0) < total {
            sleep(Duration::from_secs(1).saturating_sub(second.elapsed())).await;
        }
    }
    let refusals: Vec<Refusal> = sqlx::query_as(
        "select seq, org_id, board_id, item_id, reason as error from dead_letter
         where projection = $1 and resolved_at is null and seq = any ($2) order by seq",
    )
    .bind(PROJECTION)
    .bind(&letters)
    .fetch_all(&tools.pool)
    .await?;
    report.refused = i64::try_from(refusals.len()).unwrap_or(0);
    report.applied = report.requested - report.refused;
    report.refusals = refusals.into_iter().take(NAMED).collect();
    Ok(report)
}

async fn request(tools: &Tools, letters: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update dead_letter set retry_requested_at = now()
         where projection = $1 and seq = any ($2) and resolved_at is null",
    )
    .bind(PROJECTION)
    .bind(letters)
    .execute(&tools.pool)
    .await?;
    Ok(())
}

async fn await_answers(tools: &Tools, letters: &[i64]) -> Result<()> {
    let deadline = Instant::now() + ANSWERED;
    loop {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from dead_letter
             where projection = $1 and seq = any ($2) and retry_requested_at is not null and resolved_at is null",
        )
        .bind(PROJECTION)
        .bind(letters)
        .fetch_one(&tools.pool)
        .await?;
        if open == 0 {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!(
                "{open} letters were asked for and not answered in time; the requests stand, and the projector \
                 will answer them: `projector status`"
            );
        }
        sleep(Duration::from_millis(100)).await;
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub letters: u64,
    /// Later letters of the same leads: `retry` applies them now.
    pub still_waiting: i64,
}

/// Gives the letters up: their events are never applied, by no retry, replay or rebuild.
pub async fn skip(tools: &Tools, filter: &Filter, reason: &str) -> Result<Skipped> {
    let (_, seen) = tools.stream().await?;
    let mut tx = tools.pool.begin().await?;
    // The lanes remember which leads are parked: they begin again with what is true then.
    store::hold_lanes(&mut tx, &seen.identity).await?;
    let query = sqlx::query_scalar::<_, i64>(waiting!(
        "update dead_letter set resolved_at = now(), resolution = $8, retry_requested_at = null where",
        "returning seq"
    ));
    let resolution = format!("{SKIPPED}: {reason}");
    let skipped = filtered!(query, filter).bind(resolution).fetch_all(&mut *tx).await?;
    let still_waiting = sqlx::query_scalar(
        "select count(*) from dead_letter waiting
         where projection = $1 and resolved_at is null and exists (
             select from dead_letter s where s.projection = $1 and s.seq = any ($2)
                 and (s.org_id, s.board_id, s.item_id) = (waiting.org_id, waiting.board_id, waiting.item_id))",
    )
    .bind(PROJECTION)
    .bind(&skipped)
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Skipped { letters: u64::try_from(skipped.len()).unwrap_or(0), still_waiting })
}
