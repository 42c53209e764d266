//! What dashboards ask. A miss needs a question that nobody has asked before, with the same work behind it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use chrono::{DateTime, TimeDelta, Utc};

use super::{
    load::Requests,
    stage::{Stage, read, request},
};

/// No two questions of a run are the same.
static NEXT: AtomicU64 = AtomicU64::new(0);

const SORTS: [&str; 6] = [
    "conversion_rate",
    "deals_amount_sum",
    "closed_won_count",
    "avg_deal_size",
    "median_response_seconds",
    "burnout_score",
];
const NAMES: [&str; 6] =
    ["dana", "cohen", "%D7%9B%D7%94%D7%9F", "shapiro", "%D7%A0%D7%95%D7%A2%D7%94", "levi"];

/// A read, and its n-th unique question.
pub(super) struct Kind {
    pub name: &'static str,
    question: Box<dyn Fn(u64) -> String + Send + Sync>,
}

impl Kind {
    fn new(
        name: &'static str,
        question: impl Fn(u64) -> String + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { name, question: Box::new(question) })
    }

    /// Unique questions, with these keys in turn.
    pub(super) fn misses(self: &Arc<Self>, keys: &[String]) -> Requests {
        let (this, keys) = (Arc::clone(self), keys.to_vec());
        Arc::new(move |_| {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let key = &keys[n as usize % keys.len()];
            request(key, &(this.question)(n / keys.len() as u64), "")
        })
    }
}

/// An instant that differs a little for each `n`: the same rows, another question.
fn ago(days: i64, n: u64) -> String {
    let micros = TimeDelta::microseconds(i64::try_from(n % 60_000_000).unwrap());
    let at: DateTime<Utc> = Utc::now() - TimeDelta::days(days);
    let at = at.date_naive().and_hms_opt(0, 0, 0).unwrap().and_utc() + micros;
    at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The misses of which the issue speaks.
pub(super) async fn kinds(stage: &Stage, port: u16) -> Vec<Arc<Kind>> {
    let deep = Arc::new(deep_cursors(stage, port).await);
    vec![
        Kind::new("leaderboard, top 50 of 500", |n| {
            let (sort, order) = (SORTS[n as usize % 6], ["desc", "asc"][n as usize / 6 % 2]);
            let (window, min) = ([7, 30, 90][n as usize / 12 % 3], n / 36 % 20);
            let limit = 50 + n / 720 % 20;
            format!(
                "/v1/agents/leaderboard?window={window}d&sort={sort}&order={order}&min_n={min}&limit={limit}"
            )
        }),
        Kind::new("summary, 30 days and the 30 before", |n| {
            format!("/v1/kpis/summary?from={}&to={}", ago(30, n), ago(0, n))
        }),
        Kind::new("summary of one board", |n| {
            format!("/v1/kpis/summary?board_id=9002&from={}&to={}", ago(30, n), ago(0, n))
        }),
        Kind::new("leads, page 1 of 50", |n| format!("/v1/leads?limit=50&to={}", ago(-1, n))),
        Kind::new("leads of one agent and state", |n| {
            format!("/v1/leads?limit=50&agent_id={}&state=open&to={}", 7000 + n % 500, ago(-1, n))
        }),
        Kind::new("leads by last activity, page 1 of 50", |n| {
            format!("/v1/leads?limit=50&date_field=last_activity&to={}", ago(-7, n))
        }),
        Kind::new("leads, page 10,000 of 10", move |n| {
            let (cursor, limit) = (&deep[n as usize % deep.len()], 10 + n as usize / deep.len());
            format!("/v1/leads?cursor={cursor}&limit={limit}")
        }),
        Kind::new("timeseries, a year of days", |n| {
            format!("/v1/kpis/timeseries?bucket=day&from={}&to={}", ago(365, n), ago(0, n))
        }),
        Kind::new("timeseries, a year of weeks by industry", |n| {
            let (from, to) = (ago(365, n), ago(0, n));
            format!("/v1/kpis/timeseries?bucket=week&group_by=industry&from={from}&to={to}")
        }),
        Kind::new("timeseries, a year of days, medians", |n| {
            let (from, to) = (ago(365, n), ago(0, n));
            format!(
                "/v1/kpis/timeseries?bucket=day&metric=median_response_seconds&metric=median_time_to_close_seconds&from={from}&to={to}"
            )
        }),
        Kind::new("search, 20 hits", |n| {
            let name = NAMES[n as usize % 6];
            format!("/v1/search?limit=20&q={name}+{}", 1 + n / 6 % 9999)
        }),
        Kind::new("search, a common part of a name", |n| {
            let (name, limit) = (NAMES[n as usize % 6], 10 + n / 6 % 11);
            let rest = &["", "&types=lead"][n as usize / 66 % 2];
            format!("/v1/search?limit={limit}&q={name}{rest}")
        }),
    ]
}

/// What the earlier product published figures for.
pub(super) fn comparison() -> Vec<Arc<Kind>> {
    vec![
        Kind::new("a date range of 50 leads", |n| {
            format!("/v1/leads?limit=50&from={}&to={}", ago(60, n), ago(30, n))
        }),
        Kind::new("100 users", |n| format!("/v1/users?limit={}", 100 + n % 100)),
        Kind::new("a name search, 20 rows", |n| {
            format!("/v1/search?limit=20&q={}+{}", NAMES[n as usize % 6], 1 + n / 6 % 9999)
        }),
    ]
}

/// The reads of a dashboard's first screen.
pub(super) fn screen() -> Vec<String> {
    ["7d", "30d", "90d"]
        .iter()
        .flat_map(|window| {
            [
                format!("/v1/agents/leaderboard?window={window}"),
                format!("/v1/kpis/summary?window={window}"),
                format!("/v1/kpis/funnel?window={window}"),
                format!("/v1/industries?window={window}"),
            ]
        })
        .chain(
            [
                "/v1/leads",
                "/v1/leads?state=won&date_field=closed_won",
                "/v1/kpis/timeseries",
                "/v1/agents",
                "/v1/meta",
                "/v1/users",
                "/v1/search?q=dana",
            ]
            .map(str::to_owned),
        )
        .collect()
}

/// Cursors around row 100,000 of the first org: the page 10,000 of ten leads.
async fn deep_cursors(stage: &Stage, port: u16) -> Vec<String> {
    let mut cursors = Vec::new();
    let (mut path, mut row) = ("/v1/leads?limit=200".to_owned(), 0);
    while row < 110_000 {
        let client = read(port, &stage.keys[0], &path).await;
        let answer: serde_json::Value = serde_json::from_slice(client.body()).unwrap();
        let Some(cursor) = answer["next_cursor"].as_str() else { break };
        row += answer["items"].as_array().unwrap().len();
        if row > 90_000 {
            cursors.push(cursor.to_owned());
        }
        let limit = if row < 90_000 { 200 } else { 20 };
        path = format!("/v1/leads?limit={limit}&cursor={cursor}");
    }
    assert!(!cursors.is_empty(), "no org has 100,000 leads");
    cursors
}
