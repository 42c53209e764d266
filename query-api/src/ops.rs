//! `/ops`: what an operator of one org does through the API, with the projector's own tools and reports.
//!
//! A key is of one org, so nothing here is about another one, and nothing here is about the whole
//! instance: to pause, to rebuild, to move the position, to carry the stream elsewhere is done where the
//! instance is run, with the `projector` binary.

mod mend;
mod report;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{RawPathParams, State},
    http::{HeaderMap, Uri},
    response::Response,
};
use projector::{
    event::LeadKey,
    ops::{audit, dead_letters, dead_letters::Filter, explain, status},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    auth::{Caller, Scope},
    params::{Params, id, text},
    problem::Problem,
    state::App,
};
pub(crate) use mend::{rebuild_lead, retry, skip};
use report::{respond, told};

/// An operator's question may take this long.
const WITHIN: Duration = Duration::from_secs(20);
/// Points of the rate limit: these questions read much more than they answer.
const COST: u32 = 100;

/// A request that was let in.
struct Question {
    caller: Caller,
    params: Params,
}

impl Question {
    async fn of(
        app: &App,
        scopes: &[Scope],
        path: &RawPathParams,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let caller = app.keys.bearer(headers).await?;
        for scope in scopes {
            caller.needs(*scope)?;
        }
        app.limits.admit(&caller, COST)?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { caller, params: Params::new(path, uri.query()) })
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
        }
    }

    fn lead(&mut self) -> LeadKey {
        let board_id = self.params.one("board_id", id).unwrap_or_default();
        let item_id = self.params.one("item_id", id).unwrap_or_default();
        LeadKey { org_id: self.org().to_owned(), board_id, item_id }
    }
}

/// Lets the work end in time, or not at all.
async fn within<T>(work: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
    timeout(WITHIN, work).await.unwrap_or(Err(Problem::Unavailable))
}

pub(crate) async fn status_of(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let question = Question::of(&app, &[Scope::OpsRead], &path, &uri, &headers).await?;
    let org = question.org().to_owned();
    question.params.finish()?;
    within(async { respond(&status::status(&app.ops, Some(&org)).await) }).await
}

pub(crate) async fn letters(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut question = Question::of(&app, &[Scope::OpsRead], &path, &uri, &headers).await?;
    let filter = question.filter();
    question.params.finish()?;
    within(async {
        let groups = dead_letters::list(&app.ops, &filter).await?;
        respond(&json!({ "items": groups }))
    })
    .await
}

/// What people wrote is shown to keys with `pii:read` only.
pub(crate) async fn letter(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut question = Question::of(&app, &[Scope::OpsRead], &path, &uri, &headers).await?;
    let seq = question.params.one("seq", id).unwrap_or_default();
    let (org, pii) = (question.org().to_owned(), question.caller.may(Scope::Pii));
    question.params.finish()?;
    within(async {
        let shown = dead_letters::show(&app.ops, seq, Some(&org)).await.map_err(told)?;
        let mut shown = shown.ok_or(Problem::NotFound)?;
        if !pii {
            shown.payload = serde_json::Value::Null;
        }
        respond(&shown)
    })
    .await
}

pub(crate) async fn record(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut question = Question::of(&app, &[Scope::OpsRead], &path, &uri, &headers).await?;
    let limit = question.params.number("limit", 1, 200).unwrap_or(50);
    let org = question.org().to_owned();
    question.params.finish()?;
    within(async {
        let entries = audit::entries(&app.ops.pool, Some(&org), limit).await?;
        respond(&json!({ "items": entries }))
    })
    .await
}

pub(crate) async fn explain_lead(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let scopes = [Scope::OpsRead, Scope::Leads];
    let mut question = Question::of(&app, &scopes, &path, &uri, &headers).await?;
    let key = question.lead();
    question.params.finish()?;
    within(async {
        let explained = Box::pin(explain::lead(&app.ops, &key)).await.map_err(told)?;
        respond(&explained.ok_or(Problem::NotFound)?)
    })
    .await
}

pub(crate) async fn explain_agent(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let scopes = [Scope::OpsRead, Scope::Leads];
    let mut question = Question::of(&app, &scopes, &path, &uri, &headers).await?;
    let agent = question.params.one("agent_id", id).unwrap_or_default();
    let windows = question.caller.org.windows.clone();
    let days = question.params.one("window", |text| {
        let days = text.strip_suffix('d').and_then(|days| days.parse().ok());
        let known = days.filter(|days| windows.contains(days));
        known.ok_or_else(|| {
            format!("must be one of the org's windows: {windows:?} days, such as 30d")
        })
    });
    let days = days.or_else(|| windows.first().copied()).unwrap_or(30);
    let words: Vec<(&str, &str)> = explain::metrics().map(|name| (name, name)).collect();
    let metric = question.params.choice("metric", &words, "conversion_rate");
    let org = question.org().to_owned();
    question.params.finish()?;
    within(async {
        let explained = explain::agent(&app.ops, &org, agent, days, metric).await.map_err(told)?;
        respond(&explained.ok_or(Problem::NotFound)?)
    })
    .await
}
