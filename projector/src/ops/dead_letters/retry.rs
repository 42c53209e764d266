//! Letters applied again by the live projection, no faster than asked.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::{Filter, filtered, waiting};
use crate::{
    ops::{Tools, pause, transfer::publish_again},
    store::{PROJECTION, RETURNED, this_stream},
};

/// The projector has this long to answer the requests of one second.
const ANSWERED: Duration = Duration::from_secs(60);
/// Refused letters that a report names.
const NAMED: usize = 100;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Retried {
    pub requested: i64,
    pub applied: i64,
    pub refused: i64,
    /// Letters of an earlier stream: put into the present one again, which they come with from now on.
    pub published: i64,
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
    let published = publish_earlier(tools, filter).await?;
    let query = sqlx::query_scalar(waiting!(
        "with stream as (select min(stream_created_at) as created_at from checkpoint where projection = $1)
         select l.seq from dead_letter l, stream
         where l.projection = $1 and l.resolved_at is null and l.stream_created_at = stream.created_at
           and exists (
             select from dead_letter meant where meant.stream_created_at = stream.created_at
               and (meant.seq = l.seq or (meant.org_id = l.org_id
                 and meant.board_id = l.board_id and meant.item_id = l.item_id)) and meant.seq in (
                 select seq from dead_letter where stream_created_at = stream.created_at and",
        ")) order by l.org_id, l.board_id, l.item_id, l.seq"
    ));
    let letters: Vec<i64> = filtered!(query, filter).fetch_all(&tools.pool).await?;
    let mut report = Retried { published, ..Retried::default() };
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
    let refusals: Vec<Refusal> = sqlx::query_as(concat!(
        "select seq, org_id, board_id, item_id, reason as error from dead_letter
         where projection = $1 and resolved_at is null and seq = any ($2) and ",
        this_stream!(),
        "order by seq"
    ))
    .bind(PROJECTION)
    .bind(&letters)
    .fetch_all(&tools.pool)
    .await?;
    report.refused = i64::try_from(refusals.len()).unwrap_or(0);
    report.applied = report.requested - report.refused;
    report.refusals = refusals.into_iter().take(NAMED).collect();
    Ok(report)
}

#[derive(FromRow)]
struct Earlier {
    stream_created_at: DateTime<Utc>,
    seq: i64,
    trace_id: Option<Uuid>,
    payload: Vec<u8>,
}

/// What waits as letters of an earlier stream is in none: it goes into the present one, from which it is
/// applied, or parked anew, like everything else. Where that has it already, applying it twice changes nothing.
async fn publish_earlier(tools: &Tools, filter: &Filter) -> Result<i64> {
    let query = sqlx::query_as(waiting!(
        "select stream_created_at, seq, trace_id, payload from dead_letter
         where not (stream_created_at = (select min(stream_created_at) from checkpoint where projection = $1)) and",
        "order by stream_created_at, seq"
    ));
    let letters: Vec<Earlier> = filtered!(query, filter).fetch_all(&tools.pool).await?;
    let mut published = 0;
    for Earlier { stream_created_at, seq, trace_id, payload } in letters {
        let now = publish_again(tools, payload, trace_id.map(|id| id.as_u128())).await?;
        sqlx::query(
            "update dead_letter set resolved_at = now(), resolution = $4
             where projection = $1 and stream_created_at = $2 and seq = $3 and resolved_at is null",
        )
        .bind(PROJECTION)
        .bind(stream_created_at)
        .bind(seq)
        .bind(format!("{RETURNED} as {now}"))
        .execute(&tools.pool)
        .await?;
        published += 1;
    }
    Ok(published)
}

async fn request(tools: &Tools, letters: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "update dead_letter set retry_requested_at = now()
         where projection = $1 and seq = any ($2) and resolved_at is null and ",
        this_stream!()
    ))
    .bind(PROJECTION)
    .bind(letters)
    .execute(&tools.pool)
    .await?;
    Ok(())
}

async fn await_answers(tools: &Tools, letters: &[i64]) -> Result<()> {
    let deadline = Instant::now() + ANSWERED;
    loop {
        let open: i64 = sqlx::query_scalar(concat!(
            "select count(*) from dead_letter
             where projection = $1 and seq = any ($2) and retry_requested_at is not null and resolved_at is null
               and ",
            this_stream!()
        ))
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
