//! AgentMetrics (spec.md §3) as clients see it: the stored figures, and those that move with the clock.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{FromRow, Row, postgres::PgRow, types::Json};

use crate::{
    db::{self, Snapshot},
    kpis::figures::Figures,
    read::NotLoaded,
    value::wire,
};

type At = DateTime<Utc>;

pub(crate) const SELECT: &str = "
select agent_id, monday_user.name as agent_name, window_days, assigned_count, touched_count,
    cohort_won_count, conversion_rate, closed_won_count, period_conversion_rate, deals_amount_sum,
    deals_amount_count, avg_deal_size, median_response_seconds, median_time_to_close_seconds,
    time_to_close_count, hot_deals_count, is_hot, last_win_at, agent_metrics.last_activity_at,
    active_leads, industries, computed_at, valid_until
from agent_metrics
left join monday_user on monday_user.org_id = agent_metrics.org_id and monday_user.user_id = agent_id
where agent_metrics.org_id = ";

/// The projector recomputes a row within this time; what is older waits for a projector that is down.
const RECOMPUTED_WITHIN: TimeDelta = TimeDelta::milliseconds(2500);

#[derive(Debug, Clone, Serialize)]
pub(crate) struct AgentMetrics {
    #[serde(serialize_with = "wire::id")]
    pub(crate) agent_id: i64,
    pub(crate) agent_name: String,
    pub(crate) window_days: i32,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    pub(crate) hot_deals_count: i64,
    pub(crate) is_hot: bool,
    #[serde(serialize_with = "wire::some_instant")]
    pub(crate) last_win_at: Option<At>,
    pub(crate) hours_since_last_win: Option<f64>,
    #[serde(serialize_with = "wire::some_instant")]
    pub(crate) last_activity_at: Option<At>,
    pub(crate) hours_since_last_activity: Option<f64>,
    pub(crate) burnout_score: f64,
    pub(crate) active_leads: i64,
    /// As Postgres wrote it: nobody here looks into it.
    pub(crate) industries: Box<RawValue>,
    #[serde(skip)]
    computed_at: At,
    #[serde(skip)]
    valid_until: Option<At>,
}

impl AgentMetrics {
    fn move_to(&mut self, now: At) {
        let hours = |at: Option<At>| at.map(|at| crate::value::seconds(now - at) / 3600.0);
        let fresh =
            |hours: Option<f64>, span: f64| hours.map_or(0.0, |h| (1.0 - h / span).max(0.0));
        self.hours_since_last_win = hours(self.last_win_at);
        self.hours_since_last_activity = hours(self.last_activity_at);
        self.burnout_score = (fresh(self.hours_since_last_win, 336.0)
            + fresh(self.hours_since_last_activity, 168.0))
            / 2.0;
    }
}

/// Moves the rows to the time of the read, which is after they were read. Where the clock has overtaken
/// one that the projector is about to recompute, the read begins anew; where the projector is down, the
/// rows are what they were when the first of them expired, and the time of the read says so.
pub(crate) fn settle(
    rows: &mut [AgentMetrics],
    snapshot: &mut Snapshot,
    patient: bool,
) -> Result<(), NotLoaded> {
    let computed = rows.iter().map(|row| row.computed_at).max();
    let now = computed.map_or(db::now(), |at| at.max(db::now()));
    let expiry = rows.iter().filter_map(|row| row.valid_until).min().filter(|at| *at <= now);
    snapshot.at = match expiry {
        None => now,
        Some(expiry) if patient && now - expiry < RECOMPUTED_WITHIN => {
            return Err(NotLoaded::Overtaken);
        }
        Some(expiry) => expiry - TimeDelta::microseconds(1),
    };
    rows.iter_mut().for_each(|row| row.move_to(snapshot.at));
    Ok(())
}

impl FromRow<'_, PgRow> for AgentMetrics {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let agent_id: i64 = row.try_get("agent_id")?;
        let name: Option<String> = row.try_get("agent_name")?;
        let assigned_count = row.try_get("assigned_count")?;
        let touched_count = row.try_get("touched_count")?;
        let deals_amount_count = row.try_get("deals_amount_count")?;
        let time_to_close_count = row.try_get("time_to_close_count")?;
        let figures = Figures {
            assigned_count,
            touched_count,
            cohort_won_count: row.try_get("cohort_won_count")?,
            conversion_rate: row.try_get("conversion_rate")?,
            conversion_rate_n: assigned_count,
            closed_won_count: row.try_get("closed_won_count")?,
            period_conversion_rate: row.try_get("period_conversion_rate")?,
            period_conversion_rate_n: assigned_count,
            deals_amount_sum: row.try_get("deals_amount_sum")?,
            deals_amount_count,
            avg_deal_size: row.try_get("avg_deal_size")?,
            avg_deal_size_n: deals_amount_count,
            median_response_seconds: row.try_get("median_response_seconds")?,
            median_response_seconds_n: touched_count,
            median_time_to_close_seconds: row.try_get("median_time_to_close_seconds")?,
            median_time_to_close_seconds_n: time_to_close_count,
            time_to_close_count,
        };
        Ok(Self {
            agent_id,
            agent_name: name.unwrap_or_else(|| agent_id.to_string()),
            window_days: row.try_get("window_days")?,
            figures,
            hot_deals_count: row.try_get("hot_deals_count")?,
            is_hot: row.try_get("is_hot")?,
            last_win_at: row.try_get("last_win_at")?,
            hours_since_last_win: None,
            last_activity_at: row.try_get("last_activity_at")?,
            hours_since_last_activity: None,
            burnout_score: 0.0,
            active_leads: row.try_get("active_leads")?,
            industries: row.try_get::<Json<Box<RawValue>>, _>("industries")?.0,
            computed_at: row.try_get("computed_at")?,
            valid_until: row.try_get("valid_until")?,
        })
    }
}
