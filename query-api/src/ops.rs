//! `/ops`: what an operator of one org does through the API, with the projector's own tools and reports.
//!
//! A key is of one org, so nothing here is about another one. What is about the whole instance (to pause,
//! to rebuild, to move the position, to carry the stream elsewhere) is in `instance`, for keys of no org.

pub(crate) mod instance;
mod mend;
mod report;

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use projector::{
    event::LeadKey,
    ops::{audit, dead_letters, dead_letters::Filter, explain, status},
};
use serde_json::{Value, json};

use crate::{
    asked::Asked,
    auth::{Caller, Scope},
    params::{Params, id, text},
    problem::Problem,
    state::App,
    window::window,
};
pub(crate) use mend::{rebuild_lead, retry, skip};
use report::{respond, told};

/// Points of the rate limit: these questions read much more than they answer.
const COST: u32 = 100;

/// A request that was let in.
struct Question {
    app: Arc<App>,
    caller: Caller,
    params: Params,
}

impl Question {
    async fn of(asked: Asked, scopes: &[Scope]) -> Result<Self, Problem> {
        let caller = asked.caller(scopes.iter().copied()).await?;
        asked.app.limits.admit(&caller, COST)?;
        Ok(Self { caller, params: asked.params(), app: asked.app })
    }

    fn org(&self) -> &str {
        &self.caller.org.id
    }

    /// The letters of the caller's org.
    fn filter(&mut self) -> Filter {
        Filter {
            org: Some(self.org().to_owned()),
            board: self.params.one("board_id", id),
            item: self.params.one("item_id", id),
            kind: self.params.one("kind", text),
            error: self.params.one("error", text),
            seq: self.params.many("seq", id),
            earlier: false,
        }
    }

    fn lead(&mut self) -> LeadKey {
        let board_id = self.params.one("board_id", id).unwrap_or_default();
        let item_id = self.params.one("item_id", id).unwrap_or_default();
        LeadKey { org_id: self.org().to_owned(), board_id, item_id }
    }

    /// Nothing was wrong with it: who asks, and what it is answered with.
    fn finish(self) -> Result<(Arc<App>, Caller), Problem> {
        self.params.finish()?;
        Ok((self.app, self.caller))
    }
}

/// Every answer here says what is left of the key's points, as the reads do.
pub(crate) async fn tell_what_is_left(
    State(app): State<Arc<App>>,
    request: Request,
    next: Next,
) -> Response {
    let headers = request.headers().clone();
    let mut response = next.run(request).await;
    if response.status().is_success() {
        let now = Instant::now();
        let left = match app.keys.bearer(&headers).await {
            Ok(caller) => Ok(app.limits.left(&caller, now)),
            Err(Problem::OfNoOrg) => {
                let key_id = app.keys.of_the_instance(&headers).await;
                key_id.map(|key_id| app.limits.left_of_instance(key_id, now))
            }
            Err(problem) => Err(problem),
        };
        // A key that has just been revoked has nothing left to be told of.
        if let Ok(left) = left {
            left.tell(response.headers_mut());
        }
    }
    response
}

pub(crate) async fn status_of(asked: Asked) -> Result<Response, Problem> {
    let (app, caller) = Question::of(asked, &[Scope::OpsRead]).await?.finish()?;
    respond(&status::status(&app.ops, Some(&caller.org.id)).await)
}

pub(crate) async fn letters(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsRead]).await?;
    let filter = question.filter();
    let (app, _) = question.finish()?;
    respond(&json!({ "items": dead_letters::list(&app.ops, &filter).await? }))
}

/// What people wrote is shown to keys with `pii:read` only.
pub(crate) async fn letter(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsRead]).await?;
    let seq = question.params.one("seq", id).unwrap_or_default();
    let (app, caller) = question.finish()?;
    let shown =
        dead_letters::show(&app.ops, seq, false, Some(&caller.org.id)).await.map_err(told)?;
    let mut shown = shown.ok_or(Problem::NotFound)?;
    if !caller.may(Scope::Pii) {
        shown.payload = Value::Null;
    }
    respond(&shown)
}

/// What came of a repair has the fields of leads in it, which are for keys with `leads:read` only.
pub(crate) async fn record(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsRead]).await?;
    let limit = question.params.number("limit", 1, 200).unwrap_or(50);
    let (app, caller) = question.finish()?;
    let mut entries = audit::entries(&app.ops.pool, Some(&caller.org.id), limit).await?;
    if !caller.may(Scope::Leads) {
        entries.iter_mut().for_each(|entry| entry.result = None);
    }
    respond(&json!({ "items": entries }))
}

pub(crate) async fn explain_lead(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsRead, Scope::Leads]).await?;
    let key = question.lead();
    let (app, _) = question.finish()?;
    let explained = Box::pin(explain::lead(&app.ops, &key)).await.map_err(told)?;
    respond(&explained.ok_or(Problem::NotFound)?)
}

pub(crate) async fn explain_agent(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsRead, Scope::Leads]).await?;
    let agent = question.params.one("agent_id", id).unwrap_or_default();
    let days = window(&mut question.params, &question.caller.org);
    let words: Vec<(&str, &str)> = explain::metrics().map(|name| (name, name)).collect();
    let metric = question.params.choice("metric", &words, "conversion_rate");
    let (app, caller) = question.finish()?;
    let explained = explain::agent(&app.ops, &caller.org.id, agent, days, metric).await;
    respond(&explained.map_err(told)?.ok_or(Problem::NotFound)?)
}
