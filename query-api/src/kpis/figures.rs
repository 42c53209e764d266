//! The figures of section 3 without the agent condition, over one or two spans, from LeadFact.

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
    pub(crate) fn parse(params: &mut Params) -> Self {
        let industry = |text: &str| params::text(text).map(|text| text.to_lowercase());
        Self {
            boards: params.many("board_id", params::id),
            industries: params.many("industry", industry),
        }
    }

    fn push(&self, query: &mut QueryBuilder<Postgres>) {
        if !self.boards.is_empty() {
            query.push(" and board_id = any (").push_bind(self.boards.clone()).push(")");
        }
        if !self.industries.is_empty() {
            query.push(" and lower(coalesce(industry, 'unknown')) = any (");
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
    first: bool,
    assigned: i64,
    touched: i64,
    won: i64,
    middle: Option<Vec<PgInterval>>,
}

#[derive(Debug, FromRow)]
struct Wins {
    first: bool,
    won: i64,
    paid: i64,
    amount: Option<Decimal>,
    closed: i64,
    middle: Option<Vec<PgInterval>>,
}

/// The figures of a span and, if asked for, of the one just before, in two statements.
pub(crate) async fn figures(
    connection: &mut PgConnection,
    org: &Org,
    part: &Part,
    span: Span,
    previous: bool,
) -> Result<(Figures, Option<Figures>), sqlx::Error> {
    let start = if previous { span.previous().from } else { span.from };
    let mut query = QueryBuilder::<Postgres>::new("select entered_at <= ");
    query.push_bind(span.from).push(concat!(
        " as first, count(*) as assigned,
            count(*) filter (where first_touch_at >= entered_at) as touched,
            count(closed_won_at) as won, ",
        middle!("first_touch_at - entered_at"),
        " filter (where first_touch_at >= entered_at) as middle
         from lead_fact where lifecycle <> 'deleted' and assigned_user_id is not null and org_id = "
    ));
    query.push_bind(org.id.as_str());
    query.push(" and entered_at > ").push_bind(start);
    query.push(" and entered_at <= ").push_bind(span.to);
    part.push(&mut query);
    query.push(" group by 1");
    let cohorts: Vec<Cohort> = query.build_query_as().fetch_all(&mut *connection).await?;

    let mut query = QueryBuilder::<Postgres>::new("select closed_won_at <= ");
    query.push_bind(span.from).push(concat!(
        " as first, count(*) as won, count(*) filter (where deal_amount > 0) as paid,
            least(coalesce(sum(deal_amount) filter (where deal_amount > 0), 0), 79228162514264337593543950335) as amount,
            count(*) filter (where closed_won_at >= entered_at) as closed, ",
        middle!("closed_won_at - entered_at"),
        " filter (where closed_won_at >= entered_at) as middle
         from lead_fact where lifecycle <> 'deleted' and org_id = "
    ));
    query.push_bind(org.id.as_str());
    query.push(" and closed_won_at > ").push_bind(start);
    query.push(" and closed_won_at <= ").push_bind(span.to);
    part.push(&mut query);
    query.push(" group by 1");
    let wins: Vec<Wins> = query.build_query_as().fetch_all(connection).await?;

    let of = |first: bool| {
        let cohort = cohorts.iter().find(|cohort| cohort.first == first);
        Figures::of(cohort, wins.iter().find(|wins| wins.first == first))
    };
    Ok((of(false), previous.then(|| of(true))))
}

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
fn median(middle: Option<&[PgInterval]>) -> Option<f64> {
    let [lower, upper] = middle? else { return None };
    let micros = |span: &PgInterval| i64::from(span.days) * 86_400_000_000 + span.microseconds;
    Some((micros(lower) + micros(upper)) as f64 / 2e6)
}
