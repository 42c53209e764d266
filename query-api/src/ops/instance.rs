//! `/ops/instance`: the projector's commands about the whole instance, for keys of no org (`query-api keys
//! create --instance`). A handler reads the parameters, calls the function that the command line calls, and
//! answers its report.
//!
//! What may take long is begun, one at a time, and answered with 202 and the address of its audit row,
//! which tells how far it is and what came of it. Where the command line asks a person, `confirm=true` is needed.

pub(crate) mod change;
pub(crate) mod copy;
pub(crate) mod letters;
pub(crate) mod look;
pub(crate) mod rebuild;
pub(crate) mod work;

use std::sync::Arc;

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use projector::{
    ops::{
        Tools,
        audit::{self, Act},
    },
    rebuild::Report,
};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use self::work::Turn;
use super::{
    COST,
    report::{respond, told},
};
use crate::{
    asked::Asked,
    params::{Params, text},
    problem::Problem,
    state::App,
};

/// The one address that waits for a large body.
pub(crate) const IMPORT: &str = "/ops/instance/import";

/// A request that was let in.
struct Command {
    app: Arc<App>,
    key_id: Uuid,
    params: Params,
    headers: HeaderMap,
}

impl Command {
    async fn of(asked: Asked) -> Result<Self, Problem> {
        let key_id = asked.app.keys.of_the_instance(&asked.headers).await?;
        asked.app.limits.admit_instance(key_id, COST)?;
        Ok(Self { key_id, params: asked.params(), headers: asked.headers, app: asked.app })
    }

    fn flag(&mut self, name: &'static str) -> bool {
        self.params.choice(name, &[("true", true), ("false", false)], false)
    }

    /// Somebody means it.
    fn confirmed(&mut self) {
        if !self.flag("confirm") {
            self.params.fault("confirm", "must be true: this changes the whole instance");
        }
    }

    fn reason(&mut self) -> Option<String> {
        self.params.one("reason", text)
    }

    /// Why, where it must be said.
    fn needed_reason(&mut self) -> String {
        let reason = self.reason();
        if reason.is_none() {
            self.params.fault("reason", "is missing: why is it done?");
        }
        reason.unwrap_or_default()
    }

    fn who(&self) -> String {
        format!("instance key {}", self.key_id)
    }

    fn act(&self, command: &'static str, arguments: Value, reason: Option<String>) -> Act {
        Act { who: self.who(), org_id: None, command, arguments, reason }
    }

    fn finish(self) -> Result<Arc<App>, Problem> {
        self.params.finish()?;
        Ok(self.app)
    }
}

/// The turn of long work; a conflict while somebody has it.
fn turn(app: &App) -> Result<Turn, Problem> {
    app.long_work.take().ok_or_else(|| {
        Problem::Refused("other long work goes on: `/ops/instance/audit` tells which".into())
    })
}

/// Begins what may take long, with connections of its own, and tells where its end will be told.
async fn begin<T: Serialize + Send + Sync + 'static, F>(
    app: &App,
    act: Act,
    turn: Turn,
    work: impl FnOnce(Tools, Report) -> F,
) -> Result<Response, Problem>
where
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let pool = app.ops.pool.clone();
    let tools = app.ops.apart().map_err(told)?;
    let id = audit::begin(&pool, &act).await?;
    let work = Box::pin(work(tools, turn.report(id)));
    tokio::spawn(async move {
        let _turn = turn;
        let outcome = work.await;
        if let Err(error) = audit::end(&pool, id, &outcome).await {
            let command = act.command;
            tracing::error!(command, id, error = format!("{error:#}"), "no end of it in the audit");
        }
    });
    let href = format!("/ops/instance/audit/{id}");
    let mut response = respond(&json!({ "id": id, "href": href }))?;
    *response.status_mut() = StatusCode::ACCEPTED;
    if let Ok(place) = HeaderValue::try_from(href) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    Ok(response)
}
