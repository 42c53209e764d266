//! `GET /v1/kpis/funnel`: entered → touched → won, of the leads that entered in a span.

use serde::Serialize;

use super::{
    compared::Compared,
    figures::{Figures, Wanted},
};
use crate::{
    auth::{Caller, Scope},
    db::Snapshot,
    params::Params,
    read::{Context, Loaded, NotLoaded, Read},
    value::{instant, ratio},
};

pub(crate) struct Funnel(Compared);

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
        Self(Compared::parse(params, &caller.org))
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        // A lead enters without an owner, too.
        let wanted = Wanted { owned: false, response: false, wins: false, ..Wanted::ALL };
        let found = self.0.figures(context.org(), from, wanted).await?;
        let span = found.span;
        let answer = Answer {
            from: instant(span.from),
            to: instant(span.to),
            as_of: instant(from.at),
            current: Steps::of(&found.current),
            previous: found.previous.as_ref().map(Steps::of),
        };
        Ok(Loaded::json(&answer, self.0.lives())?)
    }
}

impl Steps {
    fn of(figures: &Figures) -> Self {
        let (entered, touched) = (figures.assigned_count, figures.touched_count);
        let won = figures.cohort_won_count;
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
