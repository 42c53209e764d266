//! `GET /v1/kpis/summary`: the org's figures over a span, beside those of the span before.

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    compared::Compared,
    figures::{Figures, Wanted},
};
use crate::{
    auth::{Caller, Scope},
    db::Snapshot,
    params::Params,
    problem::Problem,
    read::{Context, Loaded, NotLoaded, Read},
    value::{instant, money},
    window::Period,
};

pub(crate) struct Summary(Compared);

#[derive(Serialize)]
struct Answer {
    from: String,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<String>,
    as_of: String,
    current: Figures,
    previous: Option<Figures>,
    /// Current minus previous; null where one of them is.
    delta: Option<Value>,
}

impl Read for Summary {
    const FAMILY: &'static str = "summary";
    const SCOPE: Scope = Scope::Metrics;
    const COST: u32 = 5;

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        Self(Compared::parse(params, &caller.org))
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let found = self.0.figures(context.org(), from, Wanted::ALL).await?;
        let (span, current, previous) = (found.span, found.current, found.previous);
        let delta = match &previous {
            Some(previous) => Some(delta(&current, previous)?),
            None => None,
        };
        let window = match self.0.period {
            Period::LastDays(days) => Some(format!("{days}d")),
            Period::Fixed { .. } => None,
        };
        let answer = Answer {
            from: instant(span.from),
            to: instant(span.to),
            window,
            as_of: instant(from.at),
            current,
            previous,
            delta,
        };
        Ok(Loaded::json(&answer, self.0.lives())?)
    }
}

/// Field by field, exact where the fields are.
fn delta(current: &Figures, previous: &Figures) -> Result<Value, Problem> {
    let as_map = |figures: &Figures| match serde_json::to_value(figures) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(Problem::Internal),
    };
    let (current, previous) = (as_map(current)?, as_map(previous)?);
    let fields =
        current.into_iter().filter(|(name, _)| !name.ends_with("_n")).map(|(name, value)| {
            let before = previous.get(&name).unwrap_or(&Value::Null);
            let change = change(&value, before).unwrap_or(Value::Null);
            (name, change)
        });
    Ok(Value::Object(fields.collect::<Map<_, _>>()))
}

fn change(now: &Value, before: &Value) -> Option<Value> {
    if let (Some(now), Some(before)) = (now.as_str(), before.as_str()) {
        let (now, before) = (now.parse::<Decimal>().ok()?, before.parse::<Decimal>().ok()?);
        return now.checked_sub(before).map(|change| Value::from(money(change)));
    }
    if let (Some(now), Some(before)) = (now.as_i64(), before.as_i64()) {
        return Some(Value::from(now - before));
    }
    Some(Value::from(now.as_f64()? - before.as_f64()?))
}
