//! What Postgres is asked for the figures: one statement for each of their two sides.

use leadpulse_service::config::Org;
use rust_decimal::Decimal;
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::{Cuts, Group, Part, Wanted};

/// The two sides of every figure: leads by their entry, and by their win.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Cohort,
    Wins,
}

impl Side {
    pub(super) fn query(
        self,
        org: &Org,
        part: &Part,
        cuts: &Cuts,
        group: Group,
        wanted: Wanted,
    ) -> QueryBuilder<Postgres> {
        let (at, agent) = match self {
            Self::Cohort => ("entered_at", "assigned_user_id"),
            Self::Wins => ("closed_won_at", "closed_by_user_id"),
        };
        let name = match group {
            Group::None | Group::Industry => None,
            // A win that nobody is credited with is a group of its own.
            Group::Agent => Some(format!("coalesce({agent}::text, 'unknown')")),
            Group::Board => Some("board_id::text".to_owned()),
        };
        let by_industry = group == Group::Industry || !part.industries.is_empty();
        let keys = [name, by_industry.then(|| "industry".to_owned())];
        let [name, industry] = keys.clone().map(|key| key.unwrap_or_else(|| "null::text".into()));
        // Span by span: each is a range of the index, and no lead has to be told which one it is in.
        let ends = cuts.starts.iter().skip(1).chain([&cuts.end]).copied();
        let mut query = QueryBuilder::<Postgres>::new("select place as span, found.* from unnest(");
        query.push_bind(cuts.starts.clone()).push(", ").push_bind(ends.collect::<Vec<_>>());
        query.push(format_args!(
            ") with ordinality as span (start, stop, place), lateral (
                 select {name} as name, {industry} as industry, "
        ));
        query.push(match (self, wanted.response, wanted.close) {
            (Self::Cohort, true, _) => COHORT_WITH_SPANS,
            (Self::Cohort, false, _) => COHORT,
            (Self::Wins, _, true) => WINS_WITH_SPANS,
            (Self::Wins, _, false) => WINS,
        });
        query.push(" from lead_fact where lifecycle <> 'deleted' and org_id = ");
        query.push_bind(org.id.clone());
        if self == Self::Cohort && wanted.owned {
            // Not as `is not null`: that would make the agents' index a candidate, which Postgres 18 prefers to
            // skip through, agent by agent, where a board is asked for. Measured: 29 ms instead of 9.
            query.push(" and num_nonnulls(assigned_user_id) = 1");
        }
        query.push(format_args!(" and {at} > start and {at} <= stop"));
        if !part.boards.is_empty() {
            query.push(" and board_id = any (").push_bind(part.boards.clone()).push(")");
        }
        let keys: Vec<String> = keys.into_iter().flatten().collect();
        if !keys.is_empty() {
            query.push(format_args!(" group by {}", keys.join(", ")));
        }
        query.push(") as found where leads > 0");
        query
    }
}

/// One statement's row. Spans of time are seconds: floats that have every microsecond of 142 years.
#[derive(Debug, FromRow)]
pub(super) struct Row {
    /// From 1 on.
    pub(super) span: i64,
    pub(super) name: Option<String>,
    pub(super) industry: Option<String>,
    pub(super) leads: i64,
    /// Touched of those that entered; closed in a known time of those that were won.
    pub(super) timed: i64,
    /// Won of those that entered; paid of those that were won.
    pub(super) won_or_paid: i64,
    pub(super) amount: Option<Decimal>,
    pub(super) spans: Option<Vec<f64>>,
}

macro_rules! cohort {
    ($spans:literal) => {
        concat!(
            "count(*) as leads, count(*) filter (where first_touch_at >= entered_at) as timed,
             count(closed_won_at) as won_or_paid, null::numeric as amount, ",
            $spans,
            " as spans"
        )
    };
}
macro_rules! wins {
    ($spans:literal) => {
        concat!(
            "count(*) as leads, count(*) filter (where closed_won_at >= entered_at) as timed,
             count(*) filter (where deal_amount > 0) as won_or_paid,
             least(coalesce(sum(deal_amount) filter (where deal_amount > 0), 0),
                 79228162514264337593543950335) as amount, ",
            $spans,
            " as spans"
        )
    };
}
const COHORT: &str = cohort!("null::float8[]");
const WINS: &str = wins!("null::float8[]");
/// The spans of time as they are: to find the middle of floats here takes a tenth of the time that Postgres
/// needs to sort intervals.
const COHORT_WITH_SPANS: &str = cohort!(
    "array_agg(date_part('epoch', first_touch_at - entered_at)) filter (where first_touch_at >= entered_at)"
);
const WINS_WITH_SPANS: &str = wins!(
    "array_agg(date_part('epoch', closed_won_at - entered_at)) filter (where closed_won_at >= entered_at)"
);
