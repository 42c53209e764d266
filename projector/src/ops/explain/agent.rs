//! The leads behind a figure of an agent (spec.md §3), computed from LeadFact at this instant and set
//! beside what AgentMetrics have.

mod counted;

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::FromRow;

use crate::{
    agents::figures::WINDOWED,
    ops::{Tools, Usage},
    store,
};
use counted::{View, figure};

/// What can be explained beside the figures of a window.
const MORE: [&str; 4] = ["hot_deals_count", "active_leads", "last_win_at", "last_activity_at"];

/// What can be explained.
pub fn metrics() -> impl Iterator<Item = &'static str> {
    WINDOWED.into_iter().chain(MORE)
}

#[derive(Debug, Clone, Serialize)]
pub struct ExplainedAgent {
    pub org_id: String,
    pub agent_id: i64,
    pub window_days: u32,
    pub metric: String,
    pub at: DateTime<Utc>,
    /// From these leads, at `at`, …
    pub value: Value,
    /// … and in AgentMetrics, as of `stored_at`.
    pub stored: Value,
    pub stored_at: Option<DateTime<Utc>>,
    pub means: &'static str,
    pub leads: Vec<Counted>,
}

/// A lead that the figure is made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Counted {
    pub board_id: i64,
    pub item_id: i64,
    pub name: Option<String>,
    /// What it contributes: an amount, seconds, an instant; of a rate, whether it counts as won.
    pub contributes: Value,
    /// A median is this lead's value, or the mean of two such.
    pub decides: bool,
}

#[derive(Debug, Clone, FromRow)]
struct Lead {
    board_id: i64,
    item_id: i64,
    name: Option<String>,
    assigned_user_id: Option<i64>,
    closed_by_user_id: Option<i64>,
    entered_at: DateTime<Utc>,
    first_touch_at: Option<DateTime<Utc>>,
    closed_won_at: Option<DateTime<Utc>>,
    last_activity_at: Option<DateTime<Utc>>,
    deal_amount: Option<Decimal>,
    state: String,
    lifecycle: String,
}

/// None if it is no agent: nothing is or was ever assigned to it or won by it.
pub async fn agent(
    tools: &Tools,
    org_id: &str,
    agent_id: i64,
    days: u32,
    metric: &str,
) -> Result<Option<ExplainedAgent>> {
    if !metrics().any(|known| known == metric) {
        let known: Vec<&str> = metrics().collect();
        bail!(Usage(format!("`{metric}` is none of: {}", known.join(", "))));
    }
    let Some(org) = tools.config.org(org_id) else {
        bail!(Usage(format!("the org `{org_id}` is not in the configuration")));
    };
    if !org.windows.contains(&days) {
        bail!(Usage(format!(
            "the org {org_id} has the windows {:?} days, not {days}",
            org.windows
        )));
    }
    let mut tx =
        store::begin_as(&tools.pool, "begin isolation level repeatable read read only").await?;
    let stored: Option<(Value, DateTime<Utc>)> = sqlx::query_as(
        "select to_jsonb(m) -> $4, computed_at from agent_metrics m
         where org_id = $1 and agent_id = $2 and window_days = $3",
    )
    .bind(org_id)
    .bind(agent_id)
    .bind(i32::try_from(days).unwrap_or(i32::MAX))
    .bind(metric)
    .fetch_optional(&mut *tx)
    .await?;
    let leads: Vec<Lead> = sqlx::query_as(
        "select board_id, item_id, name, assigned_user_id, closed_by_user_id, entered_at, first_touch_at,
             closed_won_at, last_activity_at, deal_amount, state, lifecycle
         from lead_fact where org_id = $1 and (assigned_user_id = $2 or closed_by_user_id = $2)
             and lifecycle <> 'deleted' order by entered_at, board_id, item_id",
    )
    .bind(org_id)
    .bind(agent_id)
    .fetch_all(&mut *tx)
    .await?;
    tx.rollback().await?;
    if leads.is_empty() && stored.is_none() {
        return Ok(None);
    }
    let at = instant::cut(Utc::now());
    let view = View { agent_id, at, days, hot_hours: org.hot.window_hours };
    let (means, counted) = view.counted(metric, &leads);
    let value = figure(metric, &counted, view.cohort_size(&leads));
    let (stored, stored_at) = stored.map_or((Value::Null, None), |(value, at)| (value, Some(at)));
    let stored = match (&stored, metric) {
        (Value::Number(number), "deals_amount_sum" | "avg_deal_size") => json!(number.to_string()),
        _ => stored,
    };
    Ok(Some(ExplainedAgent {
        org_id: org_id.to_owned(),
        agent_id,
        window_days: days,
        metric: metric.to_owned(),
        at,
        value,
        stored,
        stored_at,
        means,
        leads: counted,
    }))
}
