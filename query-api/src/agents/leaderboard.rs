//! `GET /v1/agents/leaderboard`: the agents of one window, ranked by one metric.

use std::cmp::Ordering;

use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::{Postgres, QueryBuilder};

use super::metrics::{self, AgentMetrics};
use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    db::Snapshot,
    params::Params,
    read::{Context, Loaded, NotLoaded, Read},
    value, window,
};

const LIMIT: usize = 100;
const MOST: usize = 1000;

pub(crate) struct Leaderboard {
    window_days: u32,
    sort: &'static Metric,
    descending: bool,
    min_n: i64,
    limit: usize,
}

/// A value to sort by. A metric has one kind only.
#[derive(Debug, Clone, Copy)]
enum Key {
    Float(f64),
    Exact(Decimal),
}

/// A metric: its name, its value, and of how many it is made.
struct Metric {
    name: &'static str,
    of: fn(&AgentMetrics) -> Option<Key>,
    n: fn(&AgentMetrics) -> i64,
}

macro_rules! metrics {
    ($($name:ident: |$row:ident| $value:expr, n $n:ident;)*) => {
        &[$(Metric { name: stringify!($name), of: |$row| $value, n: |row| row.figures.$n }),*]
    };
}

/// A count of leads is made of the assigned ones: the size of the agent's cohort.
static METRICS: &[Metric] = metrics! {
    conversion_rate: |row| row.figures.conversion_rate.map(Key::Float), n assigned_count;
    period_conversion_rate: |row| row.figures.period_conversion_rate.map(Key::Float), n assigned_count;
    assigned_count: |row| count(row.figures.assigned_count), n assigned_count;
    touched_count: |row| count(row.figures.touched_count), n assigned_count;
    cohort_won_count: |row| count(row.figures.cohort_won_count), n assigned_count;
    closed_won_count: |row| count(row.figures.closed_won_count), n closed_won_count;
    deals_amount_sum: |row| Some(Key::Exact(row.figures.deals_amount_sum)), n deals_amount_count;
    deals_amount_count: |row| count(row.figures.deals_amount_count), n deals_amount_count;
    avg_deal_size: |row| row.figures.avg_deal_size.map(Key::Exact), n deals_amount_count;
    median_response_seconds: |row| row.figures.median_response_seconds.map(Key::Float), n touched_count;
    median_time_to_close_seconds: |row| row.figures.median_time_to_close_seconds.map(Key::Float), n time_to_close_count;
    time_to_close_count: |row| count(row.figures.time_to_close_count), n time_to_close_count;
    hot_deals_count: |row| count(row.hot_deals_count), n closed_won_count;
    is_hot: |row| count(i64::from(row.is_hot)), n closed_won_count;
    last_win_at: |row| row.last_win_at.and_then(|at| count(at.timestamp_micros())), n closed_won_count;
    last_activity_at: |row| row.last_activity_at.and_then(|at| count(at.timestamp_micros())), n assigned_count;
    hours_since_last_win: |row| row.hours_since_last_win.map(Key::Float), n closed_won_count;
    hours_since_last_activity: |row| row.hours_since_last_activity.map(Key::Float), n assigned_count;
    burnout_score: |row| Some(Key::Float(row.burnout_score)), n assigned_count;
    active_leads: |row| count(row.active_leads), n assigned_count;
};

#[expect(clippy::unnecessary_wraps, reason = "a metric's value may be missing; a count is not")]
fn count(count: i64) -> Option<Key> {
    Some(Key::Exact(Decimal::from(count)))
}

#[derive(Serialize)]
struct Board<'a> {
    window: String,
    window_days: u32,
    as_of: String,
    sort: &'a str,
    order: &'a str,
    min_n: i64,
    /// Agents with at least `min_n`; the items may be fewer.
    total: usize,
    items: Vec<Ranked<'a>>,
    top_performer: Option<Best<'a>>,
    top_revenue: Option<Best<'a>>,
    fastest_closer: Option<Best<'a>>,
    most_active: Option<Best<'a>>,
}

#[derive(Serialize)]
struct Ranked<'a> {
    rank: usize,
    #[serde(flatten)]
    metrics: &'a AgentMetrics,
}

#[derive(Serialize)]
struct Best<'a> {
    agent_id: String,
    agent_name: &'a str,
    metric: &'a str,
    value: serde_json::Value,
    n: i64,
}

impl Read for Leaderboard {
    const FAMILY: &'static str = "leaderboard";
    const SCOPE: Scope = Scope::Metrics;

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        let words: Vec<(&str, &'static Metric)> =
            METRICS.iter().map(|metric| (metric.name, metric)).collect();
        Self {
            window_days: window::window(params, &caller.org),
            sort: params.choice("sort", &words, &METRICS[0]),
            descending: params.choice("order", &[("desc", true), ("asc", false)], true),
            min_n: params.number("min_n", 0, i64::from(u32::MAX)).unwrap_or(0),
            limit: params.number("limit", 1, MOST).unwrap_or(LIMIT),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let rows = self.rows(context, from).await?;
        let all = rank(&rows, self.sort, self.descending, self.min_n);
        let best = |name: &str, descending| {
            let metric = METRICS.iter().find(|metric| metric.name == name)?;
            // The best of nothing is nobody: at least one lead stands behind it.
            best(&rows, metric, descending, self.min_n.max(1))
        };
        let board = Board {
            window: format!("{}d", self.window_days),
            window_days: self.window_days,
            as_of: value::instant(from.at),
            sort: self.sort.name,
            order: if self.descending { "desc" } else { "asc" },
            min_n: self.min_n,
            total: all.len(),
            items: all
                .iter()
                .take(self.limit)
                .zip(1..)
                .map(|(metrics, rank)| Ranked { rank, metrics })
                .collect(),
            top_performer: best("conversion_rate", true),
            top_revenue: best("deals_amount_sum", true),
            fastest_closer: best("median_time_to_close_seconds", false),
            most_active: best("touched_count", true),
        };
        Ok(Loaded::json(&board, Lives::Moment)?)
    }
}

impl Leaderboard {
    /// All agents of the window, at the time of the read.
    pub(crate) async fn rows(
        &self,
        context: &Context<'_>,
        from: &mut Snapshot,
    ) -> Result<Vec<AgentMetrics>, NotLoaded> {
        let mut query = QueryBuilder::<Postgres>::new(metrics::SELECT);
        query.push_bind(context.org().id.as_str());
        query.push(" and window_days = ").push_bind(i64::from(self.window_days));
        let mut rows: Vec<AgentMetrics> =
            query.build_query_as().fetch_all(from.connection()).await?;
        metrics::settle(&mut rows, from, context.patient)?;
        Ok(rows)
    }

    /// Those that were asked for, in their order.
    pub(crate) fn ranked<'a>(&self, rows: &'a [AgentMetrics]) -> Vec<&'a AgentMetrics> {
        let mut ranked = rank(rows, self.sort, self.descending, self.min_n);
        ranked.truncate(self.limit);
        ranked
    }
}

/// By the metric, then by agent id; agents without a value come last in either order.
fn rank<'a>(
    rows: &'a [AgentMetrics],
    metric: &Metric,
    descending: bool,
    min_n: i64,
) -> Vec<&'a AgentMetrics> {
    let mut ranked: Vec<_> = rows.iter().filter(|row| (metric.n)(row) >= min_n).collect();
    ranked.sort_by(|a, b| {
        let order = match ((metric.of)(a), (metric.of)(b)) {
            (Some(a), Some(b)) if descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        order.then(a.agent_id.cmp(&b.agent_id))
    });
    ranked
}

fn best<'a>(
    rows: &'a [AgentMetrics],
    metric: &'a Metric,
    descending: bool,
    min_n: i64,
) -> Option<Best<'a>> {
    let row = rank(rows, metric, descending, min_n).into_iter().next()?;
    let value = serde_json::to_value(row).ok()?.get(metric.name)?.clone();
    if value.is_null() {
        return None;
    }
    Some(Best {
        agent_id: row.agent_id.to_string(),
        agent_name: &row.agent_name,
        metric: metric.name,
        value,
        n: (metric.n)(row),
    })
}

impl Key {
    fn cmp(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (Self::Exact(a), Self::Exact(b)) => a.cmp(&b),
            // A metric has one kind only.
            _ => Ordering::Equal,
        }
    }
}
