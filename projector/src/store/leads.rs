//! LeadFact: reading states, writing rows, marking agents.

use std::collections::HashMap;

use sqlx::{PgConnection, Row};

use crate::{
    event::LeadKey,
    fold::{LeadRow, LeadState},
};

/// What is known of a lead: its state, and the agents that its row counts for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Known {
    pub state: LeadState,
    pub assigned_user_id: Option<i64>,
    pub closed_by_user_id: Option<i64>,
}

/// Leads as their rows have them; of a damaged row the state can't be read.
pub type Loaded = HashMap<LeadKey, Result<Known, minicbor::decode::Error>>;

/// The known ones of these leads, in one query.
pub async fn load_leads(
    connection: &mut PgConnection,
    keys: &[LeadKey],
) -> Result<Loaded, sqlx::Error> {
    let orgs: Vec<&str> = keys.iter().map(|key| key.org_id.as_str()).collect();
    let boards: Vec<i64> = keys.iter().map(|key| key.board_id).collect();
    let items: Vec<i64> = keys.iter().map(|key| key.item_id).collect();
    let rows = sqlx::query(
        "select org_id, board_id, item_id, fold_state, assigned_user_id, closed_by_user_id
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as wanted (org_id, board_id, item_id)
         join lead_fact using (org_id, board_id, item_id)",
    )
    .bind(orgs)
    .bind(boards)
    .bind(items)
    .fetch_all(connection)
    .await?;
    rows.into_iter()
        .map(|row| {
            let key = LeadKey {
                org_id: row.try_get(0)?,
                board_id: row.try_get(1)?,
                item_id: row.try_get(2)?,
            };
            let (assigned_user_id, closed_by_user_id) = (row.try_get(4)?, row.try_get(5)?);
            let known = LeadState::decode(row.try_get(3)?).map(|state| Known {
                state,
                assigned_user_id,
                closed_by_user_id,
            });
            Ok((key, known))
        })
        .collect()
}

/// Writes rows by one statement. A key must not stand in `rows` twice.
pub async fn upsert_leads(
    connection: &mut PgConnection,
    rows: &[(&LeadKey, &LeadRow, Vec<u8>)],
) -> Result<(), sqlx::Error> {
    // One array per column: the planner sees one row source, whatever the size of the batch.
    macro_rules! column {
        (|$key:ident, $row:ident, $state:ident| $value:expr) => {
            rows.iter()
                .map(|($key, $row, $state)| {
                    let _ = ($key, $row, $state);
                    $value
                })
                .collect::<Vec<_>>()
        };
    }
    sqlx::query(UPSERT)
        .bind(column!(|key, row, state| key.org_id.as_str()))
        .bind(column!(|key, row, state| key.board_id))
        .bind(column!(|key, row, state| key.item_id))
        .bind(column!(|key, row, state| row.name.as_deref()))
        .bind(column!(|key, row, state| row.group_id.as_deref()))
        .bind(column!(|key, row, state| row.status_id))
        .bind(column!(|key, row, state| row.status_label.as_deref()))
        .bind(column!(|key, row, state| row.assigned_user_id))
        .bind(column!(|key, row, state| row.assigned_at))
        .bind(column!(|key, row, state| row.deal_amount))
        .bind(column!(|key, row, state| row.industry.as_deref()))
        .bind(column!(|key, row, state| row.next_call_date))
        .bind(column!(|key, row, state| row.entered_at))
        .bind(column!(|key, row, state| row.entered_source))
        .bind(column!(|key, row, state| row.first_touch_at))
        .bind(column!(|key, row, state| row.last_activity_at))
        .bind(column!(|key, row, state| row.state.as_str()))
        .bind(column!(|key, row, state| row.closed_won_at))
        .bind(column!(|key, row, state| row.closed_lost_at))
        .bind(column!(|key, row, state| row.closed_by_user_id))
        .bind(column!(|key, row, state| row.lifecycle.as_str()))
        .bind(column!(|key, row, state| row.last_event_at))
        .bind(column!(|key, row, state| signed(row.last_seq)))
        .bind(column!(|key, row, state| row.trace_id))
        .bind(column!(|key, row, state| state.as_slice()))
        .execute(connection)
        .await?;
    Ok(())
}

const UPSERT: &str = "
insert into lead_fact (
    org_id, board_id, item_id, name, group_id, status_id, status_label, assigned_user_id, assigned_at,
    deal_amount, industry, next_call_date, entered_at, entered_source, first_touch_at,
    last_activity_at, state, closed_won_at, closed_lost_at, closed_by_user_id, lifecycle,
    last_event_at, last_seq, trace_id, fold_state)
select * from unnest(
    $1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::text[],
    $8::bigint[], $9::timestamptz[], $10::numeric[], $11::text[], $12::date[], $13::timestamptz[],
    $14::text[], $15::timestamptz[], $16::timestamptz[], $17::text[], $18::timestamptz[],
    $19::timestamptz[], $20::bigint[], $21::text[], $22::timestamptz[], $23::bigint[], $24::uuid[],
    $25::bytea[])
on conflict (org_id, board_id, item_id) do update set
    name = excluded.name, group_id = excluded.group_id, status_id = excluded.status_id,
    status_label = excluded.status_label, assigned_user_id = excluded.assigned_user_id,
    assigned_at = excluded.assigned_at, deal_amount = excluded.deal_amount,
    industry = excluded.industry, next_call_date = excluded.next_call_date,
    entered_at = excluded.entered_at, entered_source = excluded.entered_source,
    first_touch_at = excluded.first_touch_at, last_activity_at = excluded.last_activity_at,
    state = excluded.state, closed_won_at = excluded.closed_won_at,
    closed_lost_at = excluded.closed_lost_at, closed_by_user_id = excluded.closed_by_user_id,
    lifecycle = excluded.lifecycle, last_event_at = excluded.last_event_at,
    last_seq = excluded.last_seq, trace_id = excluded.trace_id, fold_state = excluded.fold_state";

/// An agent whose figures may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark<'a> {
    pub org_id: &'a str,
    pub agent_id: i64,
    /// By this lead alone (board, item); anything about the agent may have changed where there is none.
    pub lead: Option<(i64, i64)>,
    /// The first event that may have changed it.
    pub seq: u64,
}

/// Marks agents for recomputation, in the transaction that changes their leads.
pub async fn mark_dirty(
    connection: &mut PgConnection,
    marks: &[Mark<'_>],
) -> Result<(), sqlx::Error> {
    if marks.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into agent_dirty (org_id, agent_id, board_id, item_id, seq)
         select * from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[])",
    )
    .bind(marks.iter().map(|mark| mark.org_id).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.agent_id).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.lead.map(|lead| lead.0)).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| mark.lead.map(|lead| lead.1)).collect::<Vec<_>>())
    .bind(marks.iter().map(|mark| signed(mark.seq)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// A stream sequence as Postgres has it.
pub(crate) fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
