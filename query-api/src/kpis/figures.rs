//! The figures of section 3 without the agent condition, from LeadFact.

use std::collections::{BTreeMap, BTreeSet};

use leadpulse_service::config::Org;
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::{FromRow, PgConnection, Postgres, QueryBuilder, postgres::types::PgInterval};

use crate::{
    params::{self, Params},
    value::{mean, ratio, wire},
    window::Span,
};

/// Which leads of the org count.
#[derive(Debug)]
pub(crate) struct Part {
    boards: Vec<i64>,
    industries: Vec<String>,
}

impl Part {
    /// All of it.
    pub(crate) fn whole() -> Self {
        Self { boards: Vec::new(), industries: Vec::new() }
    }

    pub(crate) fn parse(params: &mut Params) -> Self {
        let industry = |text: &str| params::text(text).map(|text| text.to_lowercase());
        Self {
            boards: params.many("board_id", params::id),
            industries: params.many("industry", industry),
        }
    }

    pub(crate) fn push(&self, query: &mut QueryBuilder<Postgres>) {
        if !self.boards.is_empty() {
            query.push(" and board_id = any (").push_bind(self.boards.clone()).push(")");
        }
        if !self.industries.is_empty() {
            query.push(format_args!(" and {INDUSTRY} = any ("));
            query.push_bind(self.industries.clone()).push(")");
        }
    }
}

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) assigned_count: i64,
    pub(crate) touched_count: i64,
    pub(crate) cohort_won_count: i64,
    pub(crate) conversion_rate: Option<f64>,
    pub(crate) conversion_rate_n: i64,
    pub(crate) closed_won_count: i64,
    pub(crate) period_conversion_rate: Option<f64>,
    pub(crate) period_conversion_rate_n: i64,
    #[serde(serialize_with = "wire::money")]
    pub(crate) deals_amount_sum: Decimal,
    pub(crate) deals_amount_count: i64,
    #[serde(serialize_with = "wire::some_money")]
    pub(crate) avg_deal_size: Option<Decimal>,
    pub(crate) avg_deal_size_n: i64,
    pub(crate) median_response_seconds: Option<f64>,
    pub(crate) median_response_seconds_n: i64,
    pub(crate) median_time_to_close_seconds: Option<f64>,
    pub(crate) median_time_to_close_seconds_n: i64,
    pub(crate) time_to_close_count: i64,
}

/// The two middle values, lower and upper, of what was ordered by it; for an odd number they are one.
/// The second fraction is so little above a half that it reaches the next value of an even number only.
/// (`percentile_cont` would round the mean of the two to whole microseconds.)
macro_rules! middle {
    ($span:literal) => {
        concat!("percentile_disc(array[0.5, 0.500000001]) within group (order by ", $span, ")")
    };
}

#[derive(Debug, FromRow)]
struct Cohort {
    key: String,
    assigned: i64,
    touched: i64,
    won: i64,
    middle: Option<Vec<PgInterval>>,
}

#[derive(Debug, FromRow)]
struct Wins {
    key: String,
    won: i64,
    paid: i64,
    amount: Option<Decimal>,
    closed: i64,
    middle: Option<Vec<PgInterval>>,
}

/// The two sides of every figure: leads by their entry, and by their win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Cohort,
    Wins,
}

impl Side {
    pub(crate) fn instant(self) -> &'static str {
        match self {
            Self::Cohort => "entered_at",
            Self::Wins => "closed_won_at",
        }
    }

    pub(crate) fn agent(self) -> &'static str {
        match self {
            Self::Cohort => "assigned_user_id",
            Self::Wins => "closed_by_user_id",
        }
    }
}

const COHORT: &str = concat!(
    " as key, count(*) as assigned, count(*) filter (where first_touch_at >= entered_at) as touched,
        count(closed_won_at) as won, ",
    middle!("first_touch_at - entered_at"),
    " filter (where first_touch_at >= entered_at) as middle
     from lead_fact where lifecycle <> 'deleted' and assigned_user_id is not null and org_id = "
);
const WINS: &str = concat!(
    " as key, count(*) as won, count(*) filter (where deal_amount > 0) as paid,
        least(coalesce(sum(deal_amount) filter (where deal_amount > 0), 0), 79228162514264337593543950335) as amount,
        count(*) filter (where closed_won_at >= entered_at) as closed, ",
    middle!("closed_won_at - entered_at"),
    " filter (where closed_won_at >= entered_at) as middle
     from lead_fact where lifecycle <> 'deleted' and org_id = "
);

/// Figures over a span, apart for each key, in two statements. `key` writes a text expression.
pub(crate) async fn figures(
    connection: &mut PgConnection,
    org: &Org,
    part: &Part,
    span: Span,
    key: impl Fn(&mut QueryBuilder<Postgres>, Side),
) -> Result<BTreeMap<String, Figures>, sqlx::Error> {
    let query = |side: Side, rest: &str| {
        let mut query = QueryBuilder::<Postgres>::new("select ");
        key(&mut query, side);
        query.push(rest).push_bind(org.id.clone());
        query.push(format_args!(" and {} > ", side.instant())).push_bind(span.from);
        query.push(format_args!(" and {} <= ", side.instant())).push_bind(span.to);
        part.push(&mut query);
        query.push(" group by 1");
        query
    };
    let cohorts: Vec<Cohort> =
        query(Side::Cohort, COHORT).build_query_as().fetch_all(&mut *connection).await?;
    let wins: Vec<Wins> =
        query(Side::Wins, WINS).build_query_as().fetch_all(&mut *connection).await?;
    let cohorts: BTreeMap<_, _> = cohorts.into_iter().map(|row| (row.key.clone(), row)).collect();
    let wins: BTreeMap<_, _> = wins.into_iter().map(|row| (row.key.clone(), row)).collect();
    let keys: BTreeSet<&String> = cohorts.keys().chain(wins.keys()).collect();
    let figures =
        keys.into_iter().map(|key| (key.clone(), Figures::of(cohorts.get(key), wins.get(key))));
    Ok(figures.collect())
}

/// The key of the industry, as AgentMetrics have it.
pub(crate) const INDUSTRY: &str = "lower(coalesce(industry, 'unknown'))";

impl Figures {
    fn of(cohort: Option<&Cohort>, wins: Option<&Wins>) -> Self {
        let (assigned, touched, cohort_won) =
            cohort.map_or((0, 0, 0), |cohort| (cohort.assigned, cohort.touched, cohort.won));
        let (won, paid, closed) = wins.map_or((0, 0, 0), |wins| (wins.won, wins.paid, wins.closed));
        let amount = wins.and_then(|wins| wins.amount).unwrap_or_default();
        Self {
            assigned_count: assigned,
            touched_count: touched,
            cohort_won_count: cohort_won,
            conversion_rate: ratio(cohort_won, assigned),
            conversion_rate_n: assigned,
            closed_won_count: won,
            period_conversion_rate: ratio(won, assigned),
            period_conversion_rate_n: assigned,
            deals_amount_sum: amount,
            deals_amount_count: paid,
            avg_deal_size: mean(amount, paid),
            avg_deal_size_n: paid,
            median_response_seconds: median(cohort.and_then(|cohort| cohort.middle.as_deref())),
            median_response_seconds_n: touched,
            median_time_to_close_seconds: median(wins.and_then(|wins| wins.middle.as_deref())),
            median_time_to_close_seconds_n: closed,
            time_to_close_count: closed,
        }
    }
}

/// Seconds: the mean of the two middle values, exact in microseconds.
#[expect(clippy::cast_precision_loss, reason = "a span of microseconds below 142 years is exact")]
pub(crate) fn median(middle: Option<&[PgInterval]>) -> Option<f64> {
    let [lower, upper] = middle? else { return None };
    let micros = |span: &PgInterval| i64::from(span.days) * 86_400_000_000 + span.microseconds;
    Some((micros(lower) + micros(upper)) as f64 / 2e6)
}
