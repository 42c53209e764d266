//! What changes something: for keys with `ops:write`, each with its audit row.

use std::sync::Arc;

use axum::{
    extract::{RawPathParams, State},
    http::{HeaderMap, Uri},
    response::Response,
};
use projector::ops::{
    audit::{Act, audited},
    dead_letters, repair,
};
use serde_json::{Value, json};

use super::{Question, report::respond, report::told, within};
use crate::{auth::Scope, params::text, problem::Problem, state::App};

/// Letters a second.
const RATE: usize = 500;
/// What is answered within the time of a request; more is the business of the command line.
const MOST: i64 = 5000;

impl Question {
    fn dry_run(&mut self) -> bool {
        self.params.choice("dry_run", &[("true", true), ("false", false)], false)
    }

    fn act(&self, command: &'static str, arguments: Value, reason: Option<String>) -> Act {
        let org_id = Some(self.org().to_owned());
        Act { who: format!("key {}", self.caller.key_id), org_id, command, arguments, reason }
    }
}

pub(crate) async fn retry(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut question = Question::of(&app, &[Scope::OpsWrite], &path, &uri, &headers).await?;
    let (filter, dry_run) = (question.filter(), question.dry_run());
    let act = question.act("dead-letters retry", json!({ "filter": filter }), None);
    question.params.finish()?;
    within(async {
        let count = dead_letters::count(&app.ops, &filter).await?;
        if dry_run {
            return respond(&count);
        }
        if count.letters > MOST {
            let text = format!("these are {} letters: narrow them to {MOST}", count.letters);
            return Err(Problem::Refused(text));
        }
        let work = dead_letters::retry(&app.ops, &filter, RATE, &|_, _| {});
        respond(&audited(&app.ops.pool, &act, work).await.map_err(told)?)
    })
    .await
}

pub(crate) async fn skip(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut question = Question::of(&app, &[Scope::OpsWrite], &path, &uri, &headers).await?;
    let (filter, dry_run) = (question.filter(), question.dry_run());
    let reason = question.params.one("reason", text);
    if reason.is_none() {
        question.params.fault("reason", "is missing: why are these events given up?");
    }
    let act = question.act("dead-letters skip", json!({ "filter": filter }), reason.clone());
    question.params.finish()?;
    within(async {
        if dry_run {
            return respond(&dead_letters::count(&app.ops, &filter).await?);
        }
        let reason = reason.unwrap_or_default();
        let work = dead_letters::skip(&app.ops, &filter, &reason);
        respond(&audited(&app.ops.pool, &act, work).await.map_err(told)?)
    })
    .await
}

pub(crate) async fn rebuild_lead(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut question = Question::of(&app, &[Scope::OpsWrite], &path, &uri, &headers).await?;
    let (key, dry_run) = (question.lead(), question.dry_run());
    let reason = question.params.one("reason", text);
    let arguments = json!({ "board": key.board_id, "item": key.item_id });
    let act = question.act("rebuild-lead", arguments, reason);
    question.params.finish()?;
    within(async {
        let work = Box::pin(repair::rebuild_lead(&app.ops, &key, dry_run));
        let report = if dry_run { work.await } else { audited(&app.ops.pool, &act, work).await };
        respond(&report.map_err(told)?)
    })
    .await
}
