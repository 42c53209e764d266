//! The leads behind a figure of an agent (spec.md §3), computed from LeadFact at this instant and set
//! beside what AgentMetrics have.

use anyhow::{Result, bail};
use chrono::{DateTime, TimeDelta, Utc};
use leadpulse_nats::instant;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::FromRow;

use crate::ops::{Tools, Usage, fields};

/// What can be explained.
pub const METRICS: &[&str] = &[
    "assigned_count",
    "touched_count",
    "cohort_won_count",
    "conversion_rate",
    "closed_won_count",
    "period_conversion_rate",
    "deals_amount_sum",
    "avg_deal_size",
    "median_response_seconds",
    "median_time_to_close_seconds",
    "hot_deals_count",
    "active_leads",
    "last_win_at",
    "last_activity_at",
];

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
    if !METRICS.contains(&metric) {
        bail!(Usage(format!("`{metric}` is none of: {}", METRICS.join(", "))));
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
    let mut tx = tools.pool.begin_with("begin isolation level repeatable read read only").await?;
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

struct View {
    agent_id: i64,
    at: DateTime<Utc>,
    days: u32,
    hot_hours: u32,
}

impl View {
    fn since(&self, at: DateTime<Utc>, span: TimeDelta) -> bool {
        self.at - span < at && at <= self.at
    }

    fn in_window(&self, at: DateTime<Utc>) -> bool {
        self.since(at, TimeDelta::days(i64::from(self.days)))
    }

    fn owns(&self, lead: &Lead) -> bool {
        lead.assigned_user_id == Some(self.agent_id)
    }

    fn in_cohort(&self, lead: &Lead) -> bool {
        self.owns(lead) && self.in_window(lead.entered_at)
    }

    fn won(&self, lead: &Lead, within: impl Fn(DateTime<Utc>) -> bool) -> bool {
        lead.closed_by_user_id == Some(self.agent_id) && lead.closed_won_at.is_some_and(within)
    }

    fn cohort_size(&self, leads: &[Lead]) -> usize {
        leads.iter().filter(|lead| self.in_cohort(lead)).count()
    }

    fn counted(&self, metric: &str, leads: &[Lead]) -> (&'static str, Vec<Counted>) {
        let wins = |lead: &Lead| self.won(lead, |at| self.in_window(at));
        let of = |contributes: &dyn Fn(&Lead) -> Option<Value>| -> Vec<Counted> {
            leads.iter().filter_map(|lead| Some(lead.counted(contributes(lead)?))).collect()
        };
        match metric {
            "assigned_count" => (
                "leads assigned to the agent that entered in the window",
                of(&|lead| self.in_cohort(lead).then(|| fields::instant(lead.entered_at))),
            ),
            "touched_count" => (
                "of those, the ones touched at or after their entry",
                of(&|lead| lead.response().filter(|_| self.in_cohort(lead)).map(seconds)),
            ),
            "cohort_won_count" => (
                "of the leads that entered in the window, the ones won",
                of(&|lead| {
                    lead.closed_won_at.filter(|_| self.in_cohort(lead)).map(fields::instant)
                }),
            ),
            "conversion_rate" => (
                "won leads among the assigned ones that entered in the window",
                of(&|lead| self.in_cohort(lead).then(|| json!(lead.closed_won_at.is_some()))),
            ),
            "closed_won_count" | "period_conversion_rate" => (
                "leads that the agent won in the window",
                of(&|lead| lead.closed_won_at.filter(|_| wins(lead)).map(fields::instant)),
            ),
            "deals_amount_sum" | "avg_deal_size" => (
                "amounts of the leads that the agent won in the window",
                of(&|lead| {
                    let amount = lead.deal_amount.filter(|amount| *amount > Decimal::ZERO);
                    amount
                        .filter(|_| wins(lead))
                        .map(|amount| json!(amount.normalize().to_string()))
                }),
            ),
            "median_response_seconds" => (
                "seconds from entry to first touch, of the touched leads that entered in the window",
                deciding(of(&|lead| lead.response().filter(|_| self.in_cohort(lead)).map(seconds))),
            ),
            "median_time_to_close_seconds" => (
                "seconds from entry to the win, of the leads that the agent won in the window",
                deciding(of(&|lead| lead.time_to_close().filter(|_| wins(lead)).map(seconds))),
            ),
            "hot_deals_count" => (
                "leads that the agent won in the org's hot hours",
                of(&|lead| {
                    let hot = TimeDelta::hours(i64::from(self.hot_hours));
                    let won = self.won(lead, |at| self.since(at, hot));
                    lead.closed_won_at.filter(|_| won).map(fields::instant)
                }),
            ),
            "active_leads" => (
                "open and active leads assigned to the agent",
                of(&|lead| {
                    let active = lead.state == "open" && lead.lifecycle == "active";
                    (self.owns(lead) && active).then_some(Value::Bool(true))
                }),
            ),
            "last_win_at" => (
                "wins of the agent; the latest counts",
                latest(of(&|lead| {
                    lead.closed_won_at.filter(|_| self.won(lead, |_| true)).map(fields::instant)
                })),
            ),
            _ => (
                "activity on leads assigned to the agent; the latest counts",
                latest(of(&|lead| {
                    lead.last_activity_at.filter(|_| self.owns(lead)).map(fields::instant)
                })),
            ),
        }
    }
}

impl Lead {
    fn response(&self) -> Option<TimeDelta> {
        self.first_touch_at.map(|at| at - self.entered_at).filter(|span| *span >= TimeDelta::zero())
    }

    fn time_to_close(&self) -> Option<TimeDelta> {
        self.closed_won_at.map(|at| at - self.entered_at).filter(|span| *span >= TimeDelta::zero())
    }

    fn counted(&self, contributes: Value) -> Counted {
        Counted {
            board_id: self.board_id,
            item_id: self.item_id,
            name: self.name.clone(),
            contributes,
            decides: false,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span of microseconds below 142 years is exact")]
fn seconds(span: TimeDelta) -> Value {
    json!(span.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// Sorted, with the middle marked.
fn deciding(mut leads: Vec<Counted>) -> Vec<Counted> {
    leads.sort_by(|a, b| number(&a.contributes).total_cmp(&number(&b.contributes)));
    let length = leads.len();
    for index in [length.saturating_sub(1) / 2, length / 2] {
        if let Some(lead) = leads.get_mut(index) {
            lead.decides = true;
        }
    }
    leads
}

/// Sorted, with the last marked.
fn latest(mut leads: Vec<Counted>) -> Vec<Counted> {
    leads.sort_by(|a, b| a.contributes.as_str().cmp(&b.contributes.as_str()));
    if let Some(lead) = leads.last_mut() {
        lead.decides = true;
    }
    leads
}

#[expect(clippy::cast_precision_loss, reason = "a count of leads is far below 2^53")]
fn figure(metric: &str, leads: &[Counted], cohort: usize) -> Value {
    let rate =
        |part: usize| if cohort == 0 { Value::Null } else { json!(part as f64 / cohort as f64) };
    let amounts = || leads.iter().filter_map(|l| l.contributes.as_str()?.parse::<Decimal>().ok());
    match metric {
        "conversion_rate" => {
            rate(leads.iter().filter(|lead| lead.contributes == Value::Bool(true)).count())
        }
        "period_conversion_rate" => rate(leads.len()),
        "deals_amount_sum" => json!(amounts().sum::<Decimal>().normalize().to_string()),
        "avg_deal_size" => {
            let mean = amounts().sum::<Decimal>().checked_div(Decimal::from(leads.len()));
            json!(mean.map(|mean| mean.round_dp(6).normalize().to_string()))
        }
        "median_response_seconds" | "median_time_to_close_seconds" => {
            let middle: Vec<f64> =
                leads.iter().filter(|l| l.decides).map(|l| number(&l.contributes)).collect();
            if middle.is_empty() {
                return Value::Null;
            }
            json!(middle.iter().sum::<f64>() / middle.len() as f64)
        }
        "last_win_at" | "last_activity_at" => {
            leads.last().map_or(Value::Null, |lead| lead.contributes.clone())
        }
        _ => json!(leads.len()),
    }
}
