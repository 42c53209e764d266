//! The figures of section 3 without the agent condition, from LeadFact.

mod query;

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use leadpulse_service::config::Org;
use rust_decimal::Decimal;
use serde::Serialize;
use sqlx::PgConnection;

use crate::{
    params::{self, Params},
    problem::Problem,
    value::{mean, ratio, wire},
};
use query::{Row, Side};

/// Which leads of the org count.
#[derive(Debug, Default)]
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
}

/// The figures that leads have together, whoever they belong to; AgentMetrics have them, too.
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

/// What is asked for; what is not, is not read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// Counts of the leads that entered.
    pub(crate) cohort: bool,
    /// Of leads that have an owner only.
    pub(crate) owned: bool,
    pub(crate) response: bool,
    /// Counts and amounts of the leads that were won.
    pub(crate) wins: bool,
    pub(crate) close: bool,
}

impl Wanted {
    pub(crate) const ALL: Self =
        Self { cohort: true, owned: true, response: true, wins: true, close: true };
}

/// Spans one after the other, each `(start, end]`: where each begins, and where the last one ends.
#[derive(Debug)]
pub(crate) struct Cuts {
    pub(crate) starts: Vec<DateTime<Utc>>,
    pub(crate) end: DateTime<Utc>,
}

/// By what the leads are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    None,
    Agent,
    Industry,
    Board,
}

/// Rows of one side that are read; a few of them are one figure where an industry is spelt in several ways.
const ROWS: usize = 200_000;

/// Figures over each of the spans, by group and the place of the span, in two statements at most. Spans
/// in which there is nothing are not in it.
pub(crate) async fn figures(
    connection: &mut PgConnection,
    org: &Org,
    part: &Part,
    cuts: &Cuts,
    group: Group,
    wanted: Wanted,
) -> Result<BTreeMap<(Option<String>, usize), Figures>, Problem> {
    let mut sums = HashMap::<(Option<String>, usize), Sums>::new();
    for (side, asked) in [(Side::Cohort, wanted.cohort), (Side::Wins, wanted.wins)] {
        if !asked {
            continue;
        }
        let mut query = side.query(org, part, cuts, group, wanted);
        let mut rows = query.build_query_as::<Row>().fetch(&mut *connection);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            count += 1;
            if count > ROWS {
                return Err(Problem::invalid(
                    "from",
                    "gives too many figures: ask for a shorter span",
                ));
            }
            let industry = industry_key(row.industry.as_deref());
            if !part.industries.is_empty() && !part.industries.contains(&industry) {
                continue;
            }
            let name = if group == Group::Industry { Some(industry) } else { row.name.clone() };
            let place = usize::try_from(row.span).unwrap_or(1).saturating_sub(1);
            sums.entry((name, place)).or_default().add(side, row);
        }
    }
    Ok(sums.into_iter().map(|(key, sums)| (key, sums.figures())).collect())
}

/// The key of an industry, as AgentMetrics have it. Not in SQL: what `lower` does there depends on the
/// database's locale.
pub(crate) fn industry_key(industry: Option<&str>) -> String {
    industry.map_or_else(|| "unknown".to_owned(), str::to_lowercase)
}

/// What figures are computed from, over all spellings of an industry.
#[derive(Debug, Default)]
struct Sums {
    assigned: i64,
    touched: i64,
    cohort_won: i64,
    responses: Vec<i64>,
    won: i64,
    paid: i64,
    amount: Decimal,
    closed: i64,
    closes: Vec<i64>,
}

impl Sums {
    fn add(&mut self, side: Side, row: Row) {
        let spans = row.spans.unwrap_or_default().into_iter().map(micros);
        match side {
            Side::Cohort => {
                self.assigned += row.leads;
                self.touched += row.timed;
                self.cohort_won += row.won_or_paid;
                self.responses.extend(spans);
            }
            Side::Wins => {
                self.won += row.leads;
                self.paid += row.won_or_paid;
                self.closed += row.timed;
                self.closes.extend(spans);
                let amount = row.amount.unwrap_or_default();
                self.amount = self.amount.checked_add(amount).unwrap_or(Decimal::MAX);
            }
        }
    }

    fn figures(mut self) -> Figures {
        Figures {
            assigned_count: self.assigned,
            touched_count: self.touched,
            cohort_won_count: self.cohort_won,
            conversion_rate: ratio(self.cohort_won, self.assigned),
            conversion_rate_n: self.assigned,
            closed_won_count: self.won,
            period_conversion_rate: ratio(self.won, self.assigned),
            period_conversion_rate_n: self.assigned,
            deals_amount_sum: self.amount,
            deals_amount_count: self.paid,
            avg_deal_size: mean(self.amount, self.paid),
            avg_deal_size_n: self.paid,
            median_response_seconds: median(&mut self.responses),
            median_response_seconds_n: self.touched,
            median_time_to_close_seconds: median(&mut self.closes),
            median_time_to_close_seconds_n: self.closed,
            time_to_close_count: self.closed,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "Postgres' instants are 300,000 years at most")]
pub(crate) fn micros(seconds: f64) -> i64 {
    (seconds * 1e6).round() as i64
}

/// Seconds: the mean of the two middle values, exact in microseconds.
#[expect(clippy::cast_precision_loss, reason = "a span of microseconds below 142 years is exact")]
pub(crate) fn median(spans: &mut [i64]) -> Option<f64> {
    let middle = spans.len() / 2;
    let even = spans.len().is_multiple_of(2);
    if spans.is_empty() {
        return None;
    }
    let (below, upper, _) = spans.select_nth_unstable(middle);
    let lower = if even { below.iter().max().copied().unwrap_or(*upper) } else { *upper };
    Some((lower + *upper) as f64 / 2e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_mean_of_the_two_middle_values_to_the_microsecond() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3_000_000]), Some(3.0));
        assert_eq!(median(&mut [9, 1, 4]), Some(4e-6));
        assert_eq!(median(&mut [2_000_001, 1_000_000, 7_000_000, 2_000_002]), Some(2.000_001_5));
        assert_eq!(micros(4_473_924_799.123_457), 4_473_924_799_123_457, "142 years");
    }
}
