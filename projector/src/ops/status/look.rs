//! One look at everything, bounded in time.

use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use leadpulse_service::monitor;
use sqlx::{Executor, PgPool, Row};
use tokio::time::{Instant, timeout};

use super::{
    Consumer, Lag, Limit, Monitor, Owner, ProjectionStatus, Rates, Status, StreamStatus, findings,
};
use crate::{
    ops::{Tools, checkpoint, pause::Pause},
    reader::{self, ReadError},
    store::{self, Fault, PROJECTION},
};

/// How long either server may take to answer.
const ANSWER: Duration = Duration::from_secs(3);
const SILENT: &str = "no answer in time";
/// For those who do not run the instance: what the servers say may name others.
const WITHHELD: &str = "ask who runs the instance";
/// Postgres' codes for it.
const UNDEFINED_TABLE: &str = "42P01";
const DISK_FULL: &str = "53100";
/// Postgres' code for having been asked to write more than a setting allows: that is not a full disk.
const BOUNDED: &str = "53400";
/// Consumers that are shown at most.
const CONSUMERS: usize = 100;
/// A reader asks for more at once, and one that is up to date has a question open.
const SILENT_READER: Duration = Duration::from_secs(5);

pub(super) struct Look {
    taken: Instant,
    at: DateTime<Utc>,
    pub(super) stream: Result<StreamStatus, ReadError>,
    pub(super) tables: Result<ProjectionStatus, Unasked>,
    /// When the first event that is not applied was stored.
    waiting_since: Option<DateTime<Utc>>,
    /// What nats-server says of itself.
    pub(super) monitor: Option<Monitor>,
    /// Why Postgres, which answers, can't write.
    pub(super) unwritable: Option<Unwritable>,
}

pub(super) enum Unwritable {
    /// It is a standby, or somebody has made it so.
    ReadOnly,
    Fails(String),
}

/// Why Postgres did not answer.
pub(super) struct Unasked {
    pub(super) said: String,
    /// What an operator types or does.
    pub(super) cure: &'static str,
}

const AWAY: &str = "start Postgres, or correct DATABASE_URL";
/// For a Postgres that can't write.
pub(super) const FULL: &str = "free space on the disk of Postgres; the projector goes on by itself";

impl From<sqlx::Error> for Unasked {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let cure = match code.as_deref() {
            Some(UNDEFINED_TABLE) => "projector migrate",
            Some(DISK_FULL) => FULL,
            _ => AWAY,
        };
        Self { said: error.to_string(), cure }
    }
}

impl Look {
    pub(super) async fn take(tools: &Tools, org_id: Option<&str>) -> Self {
        let tables = match timeout(ANSWER, tables(tools, org_id)).await {
            Ok(Ok(tables)) => Ok(tables),
            Ok(Err(error)) => Err(Unasked::from(error)),
            Err(_) => Err(Unasked { said: SILENT.to_owned(), cure: AWAY }),
        };
        // What servers say is for those who run the instance.
        let withheld = org_id.is_some();
        let tables = tables.map_err(|unasked| match withheld {
            true => Unasked { said: SILENT.to_owned(), ..unasked },
            false => unasked,
        });
        let applied = tables.as_ref().map_or(0, |tables| tables.applied_seq);
        let (stream, waiting_since) = match look_at_stream(tools, applied).await {
            Ok((stream, since)) => (Ok(stream), since),
            Err(ReadError::Nats(_)) if withheld => (Err(ReadError::Nats(SILENT.to_owned())), None),
            Err(error) => (Err(error), None),
        };
        let (mut monitor, mut unwritable) = (None, None);
        if !withheld {
            monitor = ask_monitor(tools).await;
            if tables.is_ok() {
                unwritable = timeout(ANSWER, try_to_write(&tools.pool)).await.unwrap_or_default();
            }
        }
        let (taken, at) = (Instant::now(), Utc::now());
        Self { taken, at, stream, tables, waiting_since, monitor, unwritable }
    }

    /// How far the read models are behind; unknown if either side is.
    pub(super) fn lag(&self) -> Option<Lag> {
        let (stream, tables) = (self.stream.as_ref().ok()?, self.tables.as_ref().ok()?);
        let applied = u64::try_from(tables.applied_seq).unwrap_or(0);
        let events = stream.last_seq.saturating_sub(applied);
        let waiting = |at: DateTime<Utc>| seconds(self.at - at);
        let seconds = if events == 0 { Some(0.0) } else { self.waiting_since.map(waiting) };
        Some(Lag { events, seconds })
    }

    #[expect(clippy::cast_precision_loss, reason = "rates are rough; sequences stay below 2^53")]
    pub(super) fn status(self, tools: &Tools, before: Option<&Self>) -> Status {
        let (findings, lag) = (findings::of(&self, tools), self.lag());
        let stream = self.stream.ok();
        let projection = self.tables.ok();
        let applied =
            projection.as_ref().map(|tables| u64::try_from(tables.applied_seq).unwrap_or(0));
        let head = stream.as_ref().map(|stream| stream.last_seq);
        let rates = before.and_then(|before| {
            let span = self.taken.duration_since(before.taken).as_secs_f64();
            let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / span;
            let then = before.tables.as_ref().ok()?.applied_seq;
            Some(Rates {
                arriving_per_second: per_second(head?, before.stream.as_ref().ok()?.last_seq),
                applied_per_second: per_second(applied?, u64::try_from(then).unwrap_or(0)),
            })
        });
        Status { at: self.at, stream, projection, lag, rates, monitor: self.monitor, findings }
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds of a lag stay far below 2^53")]
fn seconds(span: chrono::TimeDelta) -> f64 {
    (span.num_milliseconds().max(0) as f64) / 1000.0
}

async fn ask_monitor(tools: &Tools) -> Option<Monitor> {
    Some(match monitor::complaint(tools.config.nats.monitor.as_deref()?).await {
        Ok(said) => Monitor { well: Some(said.is_none()), said },
        Err(reason) => Monitor { well: None, said: Some(reason) },
    })
}

/// Postgres answers questions also when its disk is full. What tells is a file of a megabyte that a query
/// needs for a moment: it is written where the tables are, and leaves no trace in them.
async fn try_to_write(pool: &PgPool) -> Option<Unwritable> {
    let trying = async {
        let mut tx = store::begin(pool).await?;
        let read_only: bool =
            sqlx::query_scalar("select current_setting('transaction_read_only')::boolean")
                .fetch_one(&mut *tx)
                .await?;
        tx.execute("set local work_mem = '64kB'").await?;
        tx.execute("select count(*) from generate_series(1, 50000)").await?;
        tx.rollback().await?;
        Ok::<_, sqlx::Error>(read_only)
    };
    match trying.await {
        Ok(false) => None,
        Ok(true) => Some(Unwritable::ReadOnly),
        // Whatever else goes wrong here was said by the questions before.
        Err(error) => {
            let told = error.as_database_error()?;
            (told.code().as_deref() != Some(BOUNDED))
                .then(|| Unwritable::Fails(told.message().to_owned()))
        }
    }
}

async fn look_at_stream(
    tools: &Tools,
    applied: i64,
) -> Result<(StreamStatus, Option<DateTime<Utc>>), ReadError> {
    let stream = reader::find(&tools.jetstream).await?;
    let seen = reader::look(&stream).await?;
    let state = &stream.cached_info().state;
    let status = StreamStatus {
        name: seen.identity.name.clone(),
        created_at: seen.identity.created_at,
        first_seq: seen.first,
        last_seq: seen.last,
        messages: state.messages,
        bytes: state.bytes,
        limits: limits(tools, &stream).await,
        consumers: timeout(ANSWER, consumers(&stream)).await.unwrap_or_default(),
    };
    let applied = u64::try_from(applied).unwrap_or(0);
    let since = reader::waiting_since(&stream, &seen, applied).await;
    Ok((status, since))
}

/// Those of the stream, and of its account.
async fn limits(tools: &Tools, stream: &Stream) -> Vec<Limit> {
    let (config, state) = (&stream.cached_info().config, &stream.cached_info().state);
    let account = timeout(ANSWER, tools.jetstream.query_account()).await.ok().and_then(Result::ok);
    let (stored, storage) =
        account.map_or((0, None), |account| (account.storage, account.limits.max_storage));
    [
        ("bytes of the stream", state.bytes, Some(config.max_bytes)),
        ("messages of the stream", state.messages, Some(config.max_messages)),
        ("bytes of the account", stored, storage),
    ]
    .into_iter()
    .filter_map(|(what, used, most)| {
        let most = u64::try_from(most?).ok().filter(|most| *most > 0)?;
        Some(Limit { what, used, most })
    })
    .collect()
}

async fn consumers(stream: &Stream) -> Vec<Consumer> {
    let mut found = Vec::new();
    let mut all = stream.consumers();
    while let Ok(Some(info)) = all.try_next().await {
        let active = info.delivered.last_active.unwrap_or(info.created).max(info.created);
        let silent = std::time::SystemTime::now()
            .duration_since(active.into())
            .is_ok_and(|silent| silent > SILENT_READER);
        found.push(Consumer {
            abandoned: info.num_waiting == 0 && !info.push_bound && silent,
            name: info.name,
            description: info.config.description,
            delivered_seq: info.delivered.stream_sequence,
            pending: info.num_pending,
        });
        if found.len() == CONSUMERS {
            break;
        }
    }
    found
}

async fn tables(tools: &Tools, org_id: Option<&str>) -> Result<ProjectionStatus, sqlx::Error> {
    let pool = &tools.pool;
    let position = checkpoint::show(pool).await?;
    let row = sqlx::query(
        "select
             (select count(distinct (org_id, board_id, item_id)) from dead_letter
              where projection = $1 and resolved_at is null and item_id is not null
                and ($2::text is null or org_id = $2)),
             (select count(*) from dead_letter
              where projection = $1 and resolved_at is null and ($2::text is null or org_id = $2)),
             (select count(*) from dead_letter
              where projection = $1 and resolved_at is null and org_id is null and $2::text is null),
             (select count(distinct (org_id, agent_id)) from agent_dirty
              where $2::text is null or org_id = $2),
             (select extract(epoch from now() - min(marked_at))::double precision from agent_dirty
              where $2::text is null or org_id = $2),
             (select count(*) from agent_metrics
              where valid_until <= now() and ($2::text is null or org_id = $2)),
             (select hash from projection_mapping where projection = $1),
             (select phase from rebuild
              where phase in ('folding', 'indexing', 'checking', 'catching_up', 'ready')),
             lower('É') = 'é' and cardinality(show_trgm('דנה')) > 0",
    )
    .bind(PROJECTION)
    .bind(org_id)
    .fetch_one(pool)
    .await?;
    Ok(ProjectionStatus {
        applied_seq: position.applied_seq,
        lanes: position.lanes,
        owner: owner(pool).await?,
        paused: Pause::find(pool).await?.map(|pause| match org_id {
            Some(_) => pause.withheld(),
            None => pause,
        }),
        fault: store::find_fault(pool).await?.map(|fault| match org_id {
            Some(_) => Fault { what: WITHHELD.to_owned(), ..fault },
            None => fault,
        }),
        parked_leads: row.try_get(0)?,
        parked_letters: row.try_get(1)?,
        unreadable_letters: row.try_get(2)?,
        dirty_agents: row.try_get(3)?,
        oldest_mark_seconds: row.try_get(4)?,
        stale_rows: row.try_get(5)?,
        mapping_of_tables: row.try_get(6)?,
        mapping_of_configuration: tools.mapping.hash(),
        rebuild: row.try_get(7)?,
        knows_letters: row.try_get(8)?,
    })
}

async fn owner(pool: &PgPool) -> Result<Option<Owner>, sqlx::Error> {
    let row: Option<(String, i64, DateTime<Utc>, f64)> = sqlx::query_as(
        "select owner, fence, expires_at, extract(epoch from now() - expires_at)::double precision
         from projection_lease where projection = $1",
    )
    .bind(PROJECTION)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(|(owner, fence, expires_at, silent_seconds)| {
        let alive = silent_seconds < 0.0;
        Owner { owner, fence, expires_at, alive, silent_seconds }
    }))
}
