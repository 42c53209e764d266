//! How the instance is, and what was done to it. Nothing is changed.

use axum::response::Response;
use projector::ops::{audit, checkpoint, status};
use serde::Serialize;
use serde_json::json;

use super::{super::report::respond, Command, work::Progress};
use crate::{asked::Asked, params::id, problem::Problem};

pub(crate) async fn status_of(asked: Asked) -> Result<Response, Problem> {
    let app = Command::of(asked).await?.finish()?;
    respond(&status::status(&app.ops, None).await)
}

pub(crate) async fn checkpoint_of(asked: Asked) -> Result<Response, Problem> {
    let app = Command::of(asked).await?.finish()?;
    respond(&checkpoint::show(&app.ops.pool).await?)
}

pub(crate) async fn record(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let limit = command.params.number("limit", 1, 200).unwrap_or(50);
    let app = command.finish()?;
    respond(&json!({ "items": audit::entries(&app.ops.pool, None, limit).await? }))
}

/// The resource of what was begun: `ended_at` is null while it goes on, and `progress` is then what it has
/// told last, if it is this process that does it.
pub(crate) async fn entry(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let number = command.params.one("id", id).unwrap_or_default();
    let app = command.finish()?;
    let entry = audit::entry(&app.ops.pool, number).await?.ok_or(Problem::NotFound)?;
    let progress = app.long_work.progress(number).filter(|_| entry.ended_at.is_none());
    respond(&Told { entry, progress })
}

#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    entry: audit::Entry,
    progress: Option<Progress>,
}
