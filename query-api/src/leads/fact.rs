//! LeadFact (spec.md §2) as clients see it.

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::{FromRow, Row, postgres::PgRow};
use uuid::Uuid;

use crate::value::{seconds, wire};

type At = DateTime<Utc>;

/// Without conditions. A name is one look-up in an index for each row of a page.
pub(crate) const SELECT: &str = "
select board_id, item_id, lead_fact.name, group_id, status_id, status_label, assigned_user_id, assigned_at,
    deal_amount, industry, next_call_date, entered_at, entered_source, first_touch_at,
    last_activity_at, state, closed_won_at, closed_lost_at, closed_by_user_id, lifecycle,
    last_event_at, lead_fact.last_seq, trace_id, monday_user.name as agent_name
from lead_fact
left join monday_user on monday_user.org_id = lead_fact.org_id and monday_user.user_id = assigned_user_id";

#[derive(Debug, Serialize)]
pub(crate) struct Fact {
    #[serde(serialize_with = "wire::id")]
    pub(crate) board_id: i64,
    #[serde(serialize_with = "wire::id")]
    pub(crate) item_id: i64,
    pub(crate) name: Option<String>,
    pub(crate) group_id: Option<String>,
    #[serde(serialize_with = "wire::some_id")]
    pub(crate) status_id: Option<i64>,
    pub(crate) status_label: Option<String>,
    #[serde(serialize_with = "wire::some_id")]
    pub(crate) assigned_user_id: Option<i64>,
    pub(crate) agent_name: Option<String>,
    #[serde(serialize_with = "wire::some_instant")]
    pub(crate) assigned_at: Option<At>,
    #[serde(serialize_with = "wire::some_money")]
    pub(crate) deal_amount: Option<Decimal>,
    pub(crate) industry: Option<String>,
    pub(crate) next_call_date: Option<NaiveDate>,
    #[serde(serialize_with = "wire::instant")]
    pub(crate) entered_at: At,
    pub(crate) entered_source: String,
    #[serde(serialize_with = "wire::some_instant")]
    pub(crate) first_touch_at: Option<At>,
    pub(crate) response_seconds: Option<f64>,
    #[serde(serialize_with = "wire::some_instant")]
    pub(crate) last_activity_at: Option<At>,
    pub(crate) state: String,
    #[serde(serialize_with = "wire::some_instant")]
    pub(crate) closed_won_at: Option<At>,
    pub(crate) time_to_close_seconds: Option<f64>,
    #[serde(serialize_with = "wire::some_instant")]
    pub(crate) closed_lost_at: Option<At>,
    #[serde(serialize_with = "wire::some_id")]
    pub(crate) closed_by_user_id: Option<i64>,
    pub(crate) lifecycle: String,
    #[serde(serialize_with = "wire::instant")]
    pub(crate) last_event_at: At,
    pub(crate) last_seq: i64,
    pub(crate) trace_id: Option<String>,
}

impl FromRow<'_, PgRow> for Fact {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let entered_at: At = row.try_get("entered_at")?;
        let first_touch_at: Option<At> = row.try_get("first_touch_at")?;
        let closed_won_at: Option<At> = row.try_get("closed_won_at")?;
        let assigned_user_id: Option<i64> = row.try_get("assigned_user_id")?;
        let name: Option<String> = row.try_get("agent_name")?;
        let since_entry = |at: Option<At>| {
            // What came before the entry took no time that means anything (spec.md §3).
            at.filter(|at| *at >= entered_at).map(|at| seconds(at - entered_at))
        };
        Ok(Self {
            board_id: row.try_get("board_id")?,
            item_id: row.try_get("item_id")?,
            name: row.try_get("name")?,
            group_id: row.try_get("group_id")?,
            status_id: row.try_get("status_id")?,
            status_label: row.try_get("status_label")?,
            agent_name: assigned_user_id.map(|id| name.unwrap_or_else(|| id.to_string())),
            assigned_user_id,
            assigned_at: row.try_get("assigned_at")?,
            deal_amount: row.try_get("deal_amount")?,
            industry: row.try_get("industry")?,
            next_call_date: row.try_get("next_call_date")?,
            entered_at,
            entered_source: row.try_get("entered_source")?,
            response_seconds: since_entry(first_touch_at),
            first_touch_at,
            last_activity_at: row.try_get("last_activity_at")?,
            state: row.try_get("state")?,
            time_to_close_seconds: since_entry(closed_won_at),
            closed_won_at,
            closed_lost_at: row.try_get("closed_lost_at")?,
            closed_by_user_id: row.try_get("closed_by_user_id")?,
            lifecycle: row.try_get("lifecycle")?,
            last_event_at: row.try_get("last_event_at")?,
            last_seq: row.try_get("last_seq")?,
            trace_id: row.try_get::<Option<Uuid>, _>("trace_id")?.map(|id| id.simple().to_string()),
        })
    }
}
