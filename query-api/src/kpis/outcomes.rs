//! `GET /outcomes/summary`: for dashboards of the earlier product, as they are. One cohort by entry:
//! every figure is of the leads that entered in the window. Money is a JSON number here, as it was.

use std::time::Duration;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::TimeDelta;
use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Number, json};
use sqlx::FromRow;
use tokio::time::timeout;

use super::figures::{median, micros};
use crate::{
    asked::Asked,
    auth::{Caller, Scope},
    cache::Lives,
    db::Snapshot,
    params::{self, Params},
    problem::Problem,
    read::{self, Context, Loaded, NotLoaded, Question, Read},
    value::{mean, ratio},
};

pub(crate) struct Outcomes {
    window_days: u32,
    mode: &'static str,
    board_id: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    ok: bool,
    window_days: u32,
    mode: &'static str,
    board_id: Option<String>,
    kpis: Outcome,
    per_agent: Vec<Agent>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    assigned: i64,
    closed_won: i64,
    conversion_rate: Option<f64>,
    median_time_to_close_days: Option<f64>,
    revenue: Option<Number>,
    avg_deal: Option<Number>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Agent {
    agent_user_id: String,
    agent_name: String,
    #[serde(flatten)]
    outcome: Outcome,
}

/// One agent's cohort; the row without an agent is the whole.
#[derive(Debug, FromRow)]
struct Cohort {
    agent_id: Option<i64>,
    agent_name: Option<String>,
    assigned: i64,
    won: i64,
    paid: i64,
    amount: Option<Decimal>,
    /// Seconds from the entry to the win.
    spans: Option<Vec<f64>>,
}

const COHORTS: &str = "
with cohort as (
    select assigned_user_id as agent_id, count(*) as assigned, count(closed_won_at) as won,
        count(*) filter (where closed_won_at is not null and deal_amount > 0) as paid,
        least(coalesce(sum(deal_amount) filter (where closed_won_at is not null and deal_amount > 0), 0),
            79228162514264337593543950335) as amount,
        array_agg(date_part('epoch', closed_won_at - entered_at))
            filter (where closed_won_at >= entered_at) as spans
    from lead_fact
    where org_id = $1 and entered_at > $2 and entered_at <= $3 and ($4::bigint is null or board_id = $4)
        and lifecycle <> 'deleted' and assigned_user_id is not null
    group by grouping sets ((assigned_user_id), ()))
select agent_id, monday_user.name as agent_name, assigned, won, paid, amount, spans
from cohort left join monday_user on monday_user.org_id = $1 and monday_user.user_id = agent_id";

/// Before the deadline of all requests, which refuses in another form.
const DEADLINE: Duration = Duration::from_secs(9);

pub(crate) async fn outcomes(asked: Asked) -> Response {
    let answered = timeout(DEADLINE, answer(asked)).await.unwrap_or(Err(Problem::Unavailable));
    answered.unwrap_or_else(refuse)
}

async fn answer(asked: Asked) -> Result<Response, Problem> {
    let key = asked.headers.get("x-api-key").and_then(|key| key.to_str().ok());
    let caller = asked.app.keys.caller(key.ok_or(Problem::Unauthorized)?).await?;
    caller.needs(Outcomes::SCOPE)?;
    let question = Question::<Outcomes>::new(caller, asked.params())?;
    read::answer(&asked, question).await
}

/// The earlier product's form of an error.
fn refuse(problem: Problem) -> Response {
    let error = match &problem {
        Problem::Invalid(faults) => {
            let told = faults.iter().map(|fault| format!("{} {}", fault.parameter, fault.detail));
            told.collect::<Vec<_>>().join("; ")
        }
        Problem::Unauthorized => "a valid key is needed in x-api-key".to_owned(),
        other => other.to_string(),
    };
    let mut response = problem.into_response();
    let status: StatusCode = response.status();
    response.extensions_mut().remove::<Problem>();
    let (parts, _) = response.into_parts();
    let mut told = (status, Json(json!({ "ok": false, "error": error }))).into_response();
    told.headers_mut().extend(parts.headers);
    told
}

impl Read for Outcomes {
    const FAMILY: &'static str = "outcomes";
    const SCOPE: Scope = Scope::Metrics;
    const COST: u32 = 5;

    fn parse(params: &mut Params, _: &Caller) -> Self {
        Self {
            window_days: params.choice("windowDays", &[("7", 7), ("30", 30), ("90", 90)], 30),
            mode: params.choice("mode", &[("cohort", "cohort")], "cohort"),
            board_id: params.one("boardId", params::id),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let to = from.at;
        let cohorts: Vec<Cohort> = sqlx::query_as(COHORTS)
            .bind(&context.org().id)
            .bind(to - TimeDelta::days(i64::from(self.window_days)))
            .bind(to)
            .bind(self.board_id)
            .fetch_all(from.connection())
            .await?;
        Ok(Loaded::json(&self.answer(cohorts), Lives::Moment)?)
    }
}

impl Outcomes {
    fn answer(&self, cohorts: Vec<Cohort>) -> Answer {
        let mut whole = None;
        let mut agents = Vec::new();
        for cohort in cohorts {
            match cohort.agent_id {
                Some(id) => agents.push((id, cohort)),
                None => whole = Some(cohort),
            }
        }
        let rate = |cohort: &Cohort| ratio(cohort.won, cohort.assigned).unwrap_or_default();
        agents.sort_by(|(a, one), (b, other)| rate(other).total_cmp(&rate(one)).then(a.cmp(b)));
        let per_agent = agents.into_iter().map(|(id, cohort)| Agent {
            agent_user_id: id.to_string(),
            agent_name: cohort.agent_name.clone().unwrap_or_else(|| id.to_string()),
            outcome: Outcome::of(Some(&cohort)),
        });
        Answer {
            ok: true,
            window_days: self.window_days,
            mode: self.mode,
            board_id: self.board_id.map(|id| id.to_string()),
            kpis: Outcome::of(whole.as_ref()),
            per_agent: per_agent.collect(),
        }
    }
}

impl Outcome {
    fn of(cohort: Option<&Cohort>) -> Self {
        let (assigned, closed_won, paid) =
            cohort.map_or((0, 0, 0), |cohort| (cohort.assigned, cohort.won, cohort.paid));
        let amount = cohort.and_then(|cohort| cohort.amount).unwrap_or_default();
        let spans = cohort.and_then(|cohort| cohort.spans.as_deref()).unwrap_or_default();
        let mut spans: Vec<i64> = spans.iter().copied().map(micros).collect();
        Self {
            assigned,
            closed_won,
            conversion_rate: ratio(closed_won, assigned),
            median_time_to_close_days: median(&mut spans).map(|seconds| seconds / 86_400.0),
            revenue: number(amount),
            avg_deal: mean(amount, paid).and_then(number),
        }
    }
}

/// A JSON number with all of the decimal's digits.
fn number(amount: Decimal) -> Option<Number> {
    amount.normalize().to_string().parse().ok()
}
