//! `GET /v1/kpis/funnel`: entered → touched → won, of the leads that entered in a span.

use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder};

use super::figures::Part;
use crate::{
    auth::{Caller, Scope},
    db::Snapshot,
    params::Params,
    read::{Context, Lives, Loaded, NotLoaded, Read},
    value::{instant, ratio},
    window::Period,
};

pub(crate) struct Funnel {
    period: Period,
    compare: bool,
    part: Part,
}

#[derive(Debug, Default, FromRow)]
struct Counts {
    current: bool,
    entered: i64,
    touched: i64,
    won: i64,
}

#[derive(Serialize)]
struct Steps {
    entered_count: i64,
    touched_count: i64,
    won_count: i64,
    /// Touched of entered.
    touched_rate: Option<f64>,
    touched_rate_n: i64,
    /// Won of entered.
    won_rate: Option<f64>,
    won_rate_n: i64,
    /// Won of touched. It can exceed 1: a lead can be won without a human's touch.
    touched_to_won_rate: Option<f64>,
    touched_to_won_rate_n: i64,
}

#[derive(Serialize)]
struct Answer {
    from: String,
    to: String,
    as_of: String,
    current: Steps,
    previous: Option<Steps>,
}

impl Read for Funnel {
    const FAMILY: &'static str = "funnel";
    const SCOPE: Scope = Scope::Metrics;
    const COST: u32 = 5;

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        Self {
            period: Period::read(params, &caller.org),
            compare: params.choice("compare", &[("previous", true), ("none", false)], true),
            part: Part::parse(params),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let span = self.period.at(from.at);
        let whole = span.with_previous(self.compare);
        let mut query = QueryBuilder::<Postgres>::new("select entered_at > ");
        query.push_bind(span.from).push(
            " as current, count(*) as entered, count(*) filter (where first_touch_at >= entered_at) as touched,
                count(closed_won_at) as won
             from lead_fact where lifecycle <> 'deleted' and org_id = ",
        );
        query.push_bind(context.org().id.as_str());
        query.push(" and entered_at > ").push_bind(whole.from);
        query.push(" and entered_at <= ").push_bind(whole.to);
        self.part.push(&mut query);
        query.push(" group by 1");
        let counts: Vec<Counts> = query.build_query_as().fetch_all(from.connection()).await?;
        let steps = |current| Steps::of(counts.iter().find(|counts| counts.current == current));
        let answer = Answer {
            from: instant(span.from),
            to: instant(span.to),
            as_of: instant(from.at),
            current: steps(true),
            previous: self.compare.then(|| steps(false)),
        };
        let lives = match self.period {
            Period::LastDays(_) => Lives::WithClock,
            Period::Fixed { .. } => Lives::WithData,
        };
        Ok(Loaded::json(&answer, lives)?)
    }
}

impl Steps {
    fn of(counts: Option<&Counts>) -> Self {
        let none = Counts::default();
        let Counts { entered, touched, won, .. } = *counts.unwrap_or(&none);
        Self {
            entered_count: entered,
            touched_count: touched,
            won_count: won,
            touched_rate: ratio(touched, entered),
            touched_rate_n: entered,
            won_rate: ratio(won, entered),
            won_rate_n: entered,
            touched_to_won_rate: ratio(won, touched),
            touched_to_won_rate_n: touched,
        }
    }
}
