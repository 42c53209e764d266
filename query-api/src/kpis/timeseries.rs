//! `GET /v1/kpis/timeseries`: figures bucket by bucket, cut at midnight in the org's time zone, with a
//! point for every bucket, also the empty ones.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Days, Months, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use leadpulse_service::config::Org;
use projector::agents::figures::WINDOWED;
use serde::Serialize;
use serde_json::{Map, Value};

use super::figures::{Cuts, Figures, Group, Part, Wanted, figures};
use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    db::Snapshot,
    params::Params,
    problem::Problem,
    read::{Context, Loaded, NotLoaded, Read},
    value::instant,
    window::{self, midnight},
};

/// Without `from` and `to`.
const DAYS: i64 = 30;
/// Buckets of one series.
const BUCKETS: usize = 1500;
/// Points of one answer.
const POINTS: usize = 100_000;
pub(crate) struct Timeseries {
    metrics: Vec<&'static str>,
    bucket: Bucket,
    group: Group,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
    part: Part,
}

/// A bucket's first day, its start and its end.
type Cut = (NaiveDate, DateTime<Utc>, DateTime<Utc>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bucket {
    Day,
    Week,
    Month,
}

#[derive(Serialize)]
struct Answer {
    bucket: &'static str,
    group_by: &'static str,
    time_zone: String,
    from: String,
    to: String,
    as_of: String,
    series: Vec<Series>,
}

#[derive(Serialize)]
struct Series {
    /// The agent, industry or board; null for the whole.
    group: Option<String>,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    /// The first day of the bucket, in the org's time zone.
    bucket: NaiveDate,
    start: String,
    end: String,
    /// The bucket has not ended yet.
    partial: bool,
    #[serde(flatten)]
    metrics: Map<String, Value>,
}

impl Read for Timeseries {
    const FAMILY: &'static str = "timeseries";
    const SCOPE: Scope = Scope::Metrics;
    const COST: u32 = 20;

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        let words = WINDOWED.map(|name| (name, name));
        let mut metrics = params.choices("metric", &words);
        if metrics.is_empty() {
            metrics = vec!["assigned_count", "closed_won_count", "deals_amount_sum"];
        }
        let series = Self {
            metrics,
            bucket: params.choice("bucket", &Bucket::WORDS, Bucket::Day),
            group: params.choice("group_by", &Group::WORDS, Group::None),
            from: window::instant(params, "from", &caller.org),
            to: window::instant(params, "to", &caller.org),
            part: Part::parse(params),
        };
        if let (Some(from), Some(to)) = (series.from, series.to)
            && from >= to
        {
            params.fault("to", "must be later than `from`");
        }
        series
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let org = context.org();
        let buckets = self.buckets(org, from.at)?;
        let (first, last) = match (buckets.first(), buckets.last()) {
            (Some(first), Some(last)) => (first.1, last.2),
            _ => return Err(Problem::invalid("from", "is no day that can be computed with").into()),
        };
        // Buckets have their first instant and not their last one; spans, the other way round.
        let before = |at: DateTime<Utc>| at - TimeDelta::microseconds(1);
        let starts = buckets.iter().map(|cut| before(cut.1)).collect();
        let cuts = Cuts { starts, end: before(last) };
        let connection = from.connection();
        let found = figures(connection, org, &self.part, &cuts, self.group, self.wanted()).await?;
        let mut groups = BTreeMap::<Option<String>, BTreeMap<usize, Figures>>::new();
        if self.group == Group::None {
            groups.entry(None).or_default();
        }
        for ((group, place), figures) in found {
            groups.entry(group).or_default().insert(place, figures);
        }
        if groups.len() * buckets.len() > POINTS {
            return Err(
                Problem::invalid("bucket", "gives too many points: take a longer one").into()
            );
        }
        let answer = Answer {
            bucket: self.bucket.name(),
            group_by: self.group.name(),
            time_zone: org.time_zone.name().to_owned(),
            from: instant(first),
            to: instant(last),
            as_of: instant(from.at),
            series: groups
                .into_iter()
                .map(|(group, figures)| self.series(group, &figures, &buckets, from.at))
                .collect(),
        };
        // Only a bucket's end and the coming of a new one change it by the clock alone.
        let closed = last <= from.at && self.to.is_some() && self.from.is_some();
        let lives = if closed { Lives::Medium } else { Lives::Moment };
        Ok(Loaded::json(&answer, lives)?)
    }
}

impl Timeseries {
    fn wanted(&self) -> Wanted {
        let any = |names: &[&str]| self.metrics.iter().any(|metric| names.contains(metric));
        let response = any(&["median_response_seconds"]);
        let close = any(&["median_time_to_close_seconds"]);
        let counts = [
            "assigned_count",
            "touched_count",
            "cohort_won_count",
            "conversion_rate",
            "period_conversion_rate",
        ];
        let wins =
            ["closed_won_count", "period_conversion_rate", "deals_amount_sum", "avg_deal_size"];
        Wanted {
            cohort: response || any(&counts),
            owned: true,
            response,
            wins: close || any(&wins),
            close,
        }
    }

    /// All buckets that the span touches: their first day, their start, their end.
    fn buckets(&self, org: &Org, now: DateTime<Utc>) -> Result<Vec<Cut>, Problem> {
        let zone: Tz = org.time_zone;
        let to = self.to.unwrap_or(now + TimeDelta::microseconds(1));
        let from = self.from.unwrap_or(to - TimeDelta::days(DAYS));
        if from >= to {
            return Err(Problem::invalid(
                "from",
                "must be earlier than `to`, which is now if absent",
            ));
        }
        let mut day = Some(self.bucket.first_day(from.with_timezone(&zone).date_naive()));
        let mut buckets = Vec::new();
        while let Some(first) = day {
            let next = self.bucket.next(first);
            let Some((start, end)) = midnight(first, zone).zip(midnight(next, zone)) else { break };
            if start >= to {
                break;
            }
            buckets.push((first, start, end));
            if buckets.len() > BUCKETS {
                let most = format!("gives more than {BUCKETS} points: take a longer one");
                return Err(Problem::invalid("bucket", most));
            }
            day = Some(next).filter(|next| *next > first);
        }
        Ok(buckets)
    }

    fn series(
        &self,
        group: Option<String>,
        figures: &BTreeMap<usize, Figures>,
        buckets: &[Cut],
        now: DateTime<Utc>,
    ) -> Series {
        let nothing = Figures::default();
        let points = buckets.iter().enumerate().map(|(place, (day, start, end))| {
            let figures = figures.get(&place).unwrap_or(&nothing);
            let all = serde_json::to_value(figures).unwrap_or_default();
            let mut metrics = Map::new();
            for name in &self.metrics {
                metrics.insert((*name).to_owned(), all[*name].clone());
                let n = format!("{name}_n");
                if let Some(count) = all.get(&n) {
                    metrics.insert(n, count.clone());
                }
            }
            let partial = *end > now;
            Point { bucket: *day, start: instant(*start), end: instant(*end), partial, metrics }
        });
        Series { group, points: points.collect() }
    }
}

impl Bucket {
    const WORDS: [(&'static str, Self); 3] =
        [("day", Self::Day), ("week", Self::Week), ("month", Self::Month)];

    fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    fn first_day(self, day: NaiveDate) -> NaiveDate {
        let back = match self {
            Self::Day => 0,
            Self::Week => day.weekday().num_days_from_monday(),
            Self::Month => day.day0(),
        };
        day.checked_sub_days(Days::new(u64::from(back))).unwrap_or(day)
    }

    fn next(self, day: NaiveDate) -> NaiveDate {
        let next = match self {
            Self::Day => day.checked_add_days(Days::new(1)),
            Self::Week => day.checked_add_days(Days::new(7)),
            Self::Month => day.checked_add_months(Months::new(1)),
        };
        next.unwrap_or(day)
    }
}

impl Group {
    const WORDS: [(&'static str, Self); 4] = [
        ("none", Self::None),
        ("agent", Self::Agent),
        ("industry", Self::Industry),
        ("board", Self::Board),
    ];

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Agent => "agent",
            Self::Industry => "industry",
            Self::Board => "board",
        }
    }
}
