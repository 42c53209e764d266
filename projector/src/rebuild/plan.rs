//! What a rebuild would do, before anybody does it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::{AssertSqlSafe, Row};
use tokio::time::timeout;

use super::{Rebuilder, ledger, shadow};
use crate::{
    event,
    fold::LeadState,
    lane::BUCKETS,
    reader::range::{Bounds, RangeReader, Select},
    refold::weight,
    store::{self, LEAD_COLUMNS},
};

/// The read that the expected time is reckoned from: its events at most, and its time.
const SAMPLE: u64 = 20_000;
const SAMPLE_TIME: Duration = Duration::from_secs(3);
/// Rows that are looked at under the mapping of today.
const SAMPLE_ROWS: i64 = 2_000;
/// Rows copied and indexed in a second, a careful figure of `cargo xtask bench rebuild`.
const ROWS_A_SECOND: f64 = 20_000.0;

#[derive(Debug, Clone)]
pub struct Plan {
    pub first_seq: u64,
    pub last_seq: u64,
    /// Messages in the stream.
    pub events: u64,
    /// Rows in the live table, by an estimate.
    pub leads: i64,
    /// Events read and decoded in a second, in a sample of this stream.
    pub events_per_second: f64,
    /// How often the stream is read; unknown where no row tells what a lead takes.
    pub passes: Option<u32>,
    pub memory_mib: u32,
    pub expected: Duration,
    /// What the new tables take beside the old ones, by what these take.
    pub bytes: i64,
    /// None if nothing was ever projected into them.
    pub mapping_of_tables: Option<String>,
    pub mapping_of_today: String,
    /// Sampled rows, and how many of them mean something else under the labels of today. Another
    /// choice of columns shows only in the rebuilt tables themselves.
    pub sampled_rows: usize,
    pub differing_rows: usize,
    /// Why `start` would say no.
    pub obstacles: Vec<String>,
}

pub(super) async fn plan(tool: &Rebuilder) -> Result<Plan> {
    let seen = &tool.seen;
    let sizes = sqlx::query(
        // The planner's way to estimate; a table that was never analysed is counted, up to a bound.
        "select case when reltuples > 0 and relpages > 0
                 then reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::bigint)
                 else (select count(*) from (select from public.lead_fact limit 1000000) as counted)
             end::bigint,
             pg_total_relation_size('public.lead_fact') + pg_total_relation_size('public.agent_metrics')
                 + pg_total_relation_size('public.monday_user')
         from pg_class where oid = 'public.lead_fact'::regclass",
    )
    .fetch_one(&tool.live)
    .await?;
    let leads: i64 = sizes.try_get(0)?;
    let events = (seen.last + 1).saturating_sub(seen.first.max(1));
    let rate = sample_rate(tool).await?;
    let sample = sample_rows(tool, leads).await?;
    let memory_mib = tool.config.projector.rebuild_memory_mib;
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let (events_read, leads_kept) = (events as f64 / rate, leads as f64);
    let memory = f64::from(memory_mib) * 1_048_576.0;
    let passes = sample.bytes_a_lead.map(|bytes| passes(bytes * leads_kept, memory));
    let read = events_read * f64::from(passes.unwrap_or(1));
    let expected = Duration::from_secs_f64(read + leads_kept / ROWS_A_SECOND);
    Ok(Plan {
        first_seq: seen.first,
        last_seq: seen.last,
        events,
        leads,
        events_per_second: rate,
        passes,
        memory_mib,
        expected,
        bytes: sizes.try_get(1)?,
        mapping_of_tables: store::known_mapping(&tool.live).await?,
        mapping_of_today: tool.mapping.hash(),
        sampled_rows: sample.rows,
        differing_rows: sample.differing,
        obstacles: obstacles(tool).await?,
    })
}

async fn obstacles(tool: &Rebuilder) -> Result<Vec<String>> {
    let mut obstacles = Vec::new();
    if let Some(active) = ledger::active(&tool.live).await? {
        obstacles
            .push(format!("rebuild {} of {} is {}", active.id, active.started_by, active.phase));
    }
    if shadow::exists(&tool.live, shadow::ARCHIVE).await? {
        obstacles.push("the tables of the last rebuild are still kept (drop-archive)".to_owned());
    }
    for view in shadow::views(&tool.live).await? {
        obstacles.push(format!("the view {view} would go on reading the old tables"));
    }
    if tool.seen.first > 1 {
        let first = tool.seen.first;
        obstacles.push(format!(
            "the stream begins at {first}: what came before is gone (--accept-loss)"
        ));
    }
    Ok(obstacles)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
async fn sample_rate(tool: &Rebuilder) -> Result<f64> {
    let from = tool.seen.first.max(1);
    let bounds = Bounds { from, to: tool.seen.last.min(from.saturating_add(SAMPLE)) };
    let identity = &tool.seen.identity;
    let mut reader = RangeReader::open(&tool.stream, identity, bounds, Select::default()).await?;
    let started = Instant::now();
    let reading = async {
        while let Some(chunk) = reader.next().await? {
            for delivery in &chunk {
                let Ok(envelope) = &delivery.envelope else { continue };
                event::decode(envelope, delivery.seq, delivery.trace_id, &tool.mapping);
            }
        }
        anyhow::Ok(())
    };
    if let Ok(outcome) = timeout(SAMPLE_TIME, reading).await {
        outcome?;
    }
    let read = (reader.read() + 1).saturating_sub(from);
    Ok((read as f64 / started.elapsed().as_secs_f64().max(0.001)).max(1.0))
}

/// Each pass folds as many buckets as the memory holds, which it finds out by halving what is left.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn passes(bytes: f64, memory: f64) -> u32 {
    let (mut left, mut passes) = (BUCKETS, 0);
    while left > 0 {
        let mut folded = left;
        while folded > 1 && bytes * folded as f64 / BUCKETS as f64 > memory {
            folded /= 2;
        }
        left -= folded;
        passes += 1;
    }
    passes
}

/// Rows under the mapping of today.
struct Sample {
    rows: usize,
    differing: usize,
    /// What the fold of one takes in memory.
    bytes_a_lead: Option<f64>,
}

async fn sample_rows(tool: &Rebuilder, leads: i64) -> Result<Sample> {
    #[expect(clippy::cast_precision_loss, reason = "a share of a table")]
    let percent = (SAMPLE_ROWS as f64 * 150.0 / leads.max(1) as f64).min(100.0);
    let query =
        format!("select {LEAD_COLUMNS} from public.lead_fact tablesample bernoulli ($1) limit $2");
    let rows = sqlx::query(AssertSqlSafe(query))
        .bind(percent)
        .bind(SAMPLE_ROWS)
        .fetch_all(&tool.live)
        .await?;
    let (mut differing, mut taken) = (0, 0);
    for row in &rows {
        let (key, row, bytes) = store::read_lead(row)?;
        let board = tool.mapping.board(&key.org_id, key.board_id);
        let state = LeadState::decode(&bytes).ok();
        taken += state.as_ref().map_or(0, weight);
        let meant = board.and_then(|board| state?.row(board));
        differing += usize::from(meant.as_ref() != Some(&row));
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let bytes_a_lead = (taken > 0).then(|| taken as f64 / rows.len() as f64);
    Ok(Sample { rows: rows.len(), differing, bytes_a_lead })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_outgrows_the_memory_takes_more_passes() {
        assert_eq!(passes(0.0, 1.0), 1);
        assert_eq!(passes(1.0, 1.0), 1);
        assert_eq!(passes(1.5, 1.0), 2);
        assert_eq!(passes(3.0, 1.0), 4);
        // One bucket that does not fit is the rebuild's to refuse.
        assert_eq!(passes(1e9, 1.0), u32::try_from(BUCKETS).unwrap());
    }
}
