//! What changes something: for keys with `ops:write`, each with its audit row.

use std::sync::Arc;

use axum::response::Response;
use projector::ops::{
    audit::{Act, audited},
    dead_letters::{self, Filter},
    repair,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Question,
    report::{respond, told},
};
use crate::{asked::Asked, auth::Scope, params::text, problem::Problem, state::App};

/// Letters a second.
const RATE: usize = 500;
/// Letters of one request; more is the business of the command line.
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

/// Does it to its end, and writes that down, also for a client that goes away or whose time is over.
pub(super) async fn carry_out<T: Serialize + Send + Sync + 'static>(
    app: &Arc<App>,
    act: Act,
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> Result<Response, Problem> {
    let permit = Arc::clone(&app.repairs).try_acquire_owned().map_err(|_| Problem::Unavailable)?;
    let pool = app.ops.pool.clone();
    let done = tokio::spawn(async move {
        let _permit = permit;
        audited(&pool, &act, Box::pin(work)).await
    });
    match done.await {
        Ok(report) => respond(&report.map_err(told)?),
        Err(_) => Err(Problem::Internal),
    }
}

pub(crate) async fn retry(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsWrite]).await?;
    let (filter, dry_run) = (question.filter(), question.dry_run());
    let reason = question.params.one("reason", text);
    let act = question.act("dead-letters retry", json!({ "filter": filter }), reason);
    let (app, _) = question.finish()?;
    retry_letters(app, act, filter, dry_run).await
}

/// The same for an org and for the whole instance.
pub(super) async fn retry_letters(
    app: Arc<App>,
    act: Act,
    filter: Filter,
    dry_run: bool,
) -> Result<Response, Problem> {
    let count = dead_letters::count(&app.ops, &filter).await?;
    if dry_run {
        return respond(&count);
    }
    if count.letters > MOST {
        let text = format!("these are {} letters: narrow them to {MOST}", count.letters);
        return Err(Problem::Refused(text));
    }
    let tools = app.ops.clone();
    carry_out(
        &app,
        act,
        async move { dead_letters::retry(&tools, &filter, RATE, &|_, _| {}).await },
    )
    .await
}

pub(crate) async fn skip(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsWrite]).await?;
    let (filter, dry_run) = (question.filter(), question.dry_run());
    let reason = question.params.one("reason", text);
    if reason.is_none() {
        question.params.fault("reason", "is missing: why are these events given up?");
    }
    let act = question.act("dead-letters skip", json!({ "filter": filter }), reason.clone());
    let (app, _) = question.finish()?;
    skip_letters(app, act, filter, reason.unwrap_or_default(), dry_run).await
}

pub(super) async fn skip_letters(
    app: Arc<App>,
    act: Act,
    filter: Filter,
    reason: String,
    dry_run: bool,
) -> Result<Response, Problem> {
    if dry_run {
        return respond(&dead_letters::count(&app.ops, &filter).await?);
    }
    let tools = app.ops.clone();
    carry_out(&app, act, async move { dead_letters::skip(&tools, &filter, &reason).await }).await
}

/// The report has the fields of the lead, before and after.
pub(crate) async fn rebuild_lead(asked: Asked) -> Result<Response, Problem> {
    let mut question = Question::of(asked, &[Scope::OpsWrite, Scope::Leads]).await?;
    let (key, dry_run) = (question.lead(), question.dry_run());
    let reason = question.params.one("reason", text);
    let arguments = json!({ "board": key.board_id, "item": key.item_id });
    let act = question.act("rebuild-lead", arguments, reason);
    let (app, _) = question.finish()?;
    if app.mapping.board(&key.org_id, key.board_id).is_none() {
        return Err(Problem::NotFound);
    }
    if dry_run {
        let planned = Box::pin(repair::rebuild_lead(&app.ops, &key, true)).await;
        return respond(&planned.map_err(told)?);
    }
    let tools = app.ops.clone();
    let work = async move { Box::pin(repair::rebuild_lead(&tools, &key, false)).await };
    carry_out(&app, act, work).await
}
