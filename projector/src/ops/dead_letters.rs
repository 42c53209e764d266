//! Dead letters: what is parked and why, applied again in order, or given up with a reason.

mod filter;
mod retry;

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;

use super::Tools;
use crate::store::{self, PROJECTION, SKIPPED};
pub use filter::Filter;
use filter::{filtered, waiting};
pub use retry::{Refusal, Retried, retry};

/// Letters with one error on one board and of one stream.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Group {
    pub error: String,
    pub org_id: Option<String>,
    pub board_id: Option<i64>,
    /// They came with a stream that is gone: their sequences mean nothing in the present one.
    pub earlier_stream: bool,
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
        "select reason as error, org_id, board_id, stream_created_at is distinct from (
                 select min(stream_created_at) from checkpoint where projection = $1) as earlier_stream,
             count(*) as letters,
             count(distinct (board_id, item_id)) filter (where item_id is not null) as leads,
             min(seq) as first_seq, max(seq) as last_seq,
             min(parked_at) as first_parked_at, max(parked_at) as last_parked_at
         from dead_letter where",
        "group by reason, org_id, board_id, stream_created_at order by letters desc, first_seq limit 1000"
    ));
    filtered!(query, filter).fetch_all(&tools.pool).await
}

/// One letter, whole.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    pub seq: i64,
    /// The stream that has, or had, this sequence.
    pub stream_created_at: DateTime<Utc>,
    pub earlier_stream: bool,
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

/// The letter with this sequence in the present stream, or in the last one before it that has such a
/// letter; of one org where one is given.
pub async fn show(
    tools: &Tools,
    seq: i64,
    earlier: bool,
    org_id: Option<&str>,
) -> Result<Option<Shown>> {
    #[derive(FromRow)]
    struct Letter {
        stream_created_at: DateTime<Utc>,
        earlier_stream: bool,
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
        "select * from (
             select *, stream_created_at is distinct from (
                 select min(stream_created_at) from checkpoint where projection = $1) as earlier_stream
             from dead_letter) as letter
         where projection = $1 and seq = $2 and ($3::text is null or org_id = $3)
           and (earlier_stream or not $4)
         order by earlier_stream, stream_created_at desc limit 1",
    )
    .bind(PROJECTION)
    .bind(seq)
    .bind(org_id)
    .bind(earlier)
    .fetch_optional(&tools.pool)
    .await?;
    let Some(letter) = letter else { return Ok(None) };
    let waiting_of_lead = sqlx::query_scalar(
        "select seq from dead_letter where projection = $1 and org_id = $2 and board_id = $3
             and item_id = $4 and resolved_at is null and stream_created_at = $5 order by seq",
    )
    .bind(PROJECTION)
    .bind(&letter.org_id)
    .bind(letter.board_id)
    .bind(letter.item_id)
    .bind(letter.stream_created_at)
    .fetch_all(&tools.pool)
    .await?;
    let payload = serde_json::from_slice(&letter.payload)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&letter.payload).into_owned()));
    Ok(Some(Shown {
        seq,
        stream_created_at: letter.stream_created_at,
        earlier_stream: letter.earlier_stream,
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

/// The lead of a letter, as far as it has one.
type Lead = (Option<String>, Option<i64>, Option<i64>);

#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    pub letters: u64,
    /// Later letters of the same leads: `retry` applies them now.
    pub still_waiting: i64,
}

/// Gives the letters up: their events are never applied, by no retry, replay or rebuild, nor are copies of
/// them that a stream of later has from an export.
pub async fn skip(tools: &Tools, filter: &Filter, reason: &str) -> Result<Skipped> {
    let (_, seen) = tools.stream().await?;
    let mut tx = store::begin(&tools.pool).await?;
    // The lanes remember which leads are parked: they begin again with what is true then.
    store::hold_lanes(&mut tx, &seen.identity).await?;
    let query = sqlx::query_as::<_, Lead>(waiting!(
        "update dead_letter set resolved_at = now(), resolution = $9, retry_requested_at = null where",
        "returning org_id, board_id, item_id"
    ));
    let resolution = format!("{SKIPPED}: {reason}");
    let skipped = filtered!(query, filter).bind(resolution).fetch_all(&mut *tx).await?;
    let still_waiting = sqlx::query_scalar(
        "select count(*) from dead_letter
         where projection = $1 and resolved_at is null and (org_id, board_id, item_id) in (
             select * from unnest($2::text[], $3::bigint[], $4::bigint[]))",
    )
    .bind(PROJECTION)
    .bind(skipped.iter().map(|lead| lead.0.clone()).collect::<Vec<_>>())
    .bind(skipped.iter().map(|lead| lead.1).collect::<Vec<_>>())
    .bind(skipped.iter().map(|lead| lead.2).collect::<Vec<_>>())
    .fetch_one(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(Skipped { letters: u64::try_from(skipped.len()).unwrap_or(0), still_waiting })
}
