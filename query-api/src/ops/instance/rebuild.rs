//! `projector rebuild`, begun from here. Its row and its audit row tell how far it is; a rebuild that this
//! process did not live to end is gone on with by the next `start`, here or on the command line.

use std::sync::Arc;

use axum::response::Response;
use projector::{
    ops::Tools,
    rebuild::{
        Rebuilder, Report,
        command::{Command as Rebuild, Why, obey},
    },
};
use serde_json::{Value, json};

use super::{
    super::{
        mend::carry_out,
        report::{respond, told},
    },
    Command, begin, turn,
};
use crate::{asked::Asked, problem::Problem};

async fn carry(tools: Tools, wish: &Rebuild, who: &str, report: Report) -> anyhow::Result<Value> {
    let tool = Rebuilder::open(tools, report).await?;
    Box::pin(obey(&tool, wish, who)).await
}

/// For what is done before anybody can ask how far it is.
fn silent() -> Report {
    Arc::new(|_, _, _| {})
}

pub(crate) async fn status(asked: Asked) -> Result<Response, Problem> {
    let command = Command::of(asked).await?;
    let who = command.who();
    let app = command.finish()?;
    let last = carry(app.ops.clone(), &Rebuild::Status, &who, silent()).await.map_err(told)?;
    respond(&json!({ "rebuild": last }))
}

pub(crate) async fn plan(asked: Asked) -> Result<Response, Problem> {
    let command = Command::of(asked).await?;
    let who = command.who();
    let app = command.finish()?;
    respond(&carry(app.ops.clone(), &Rebuild::Plan, &who, silent()).await.map_err(told)?)
}

pub(crate) async fn start(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let (swap, accept_loss) = (command.flag("swap"), command.flag("accept_loss"));
    let why = command.why();
    long(command, Rebuild::Start { swap, accept_loss, why }).await
}

pub(crate) async fn swap(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let wish = Rebuild::Swap(command.why());
    long(command, wish).await
}

pub(crate) async fn rollback(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let wish = Rebuild::Rollback(command.why());
    long(command, wish).await
}

/// Not in the turn of long work: it ends what may have it.
pub(crate) async fn abort(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let wish = Rebuild::Abort(command.why());
    short(command, wish).await
}

pub(crate) async fn drop_archive(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let wish = Rebuild::DropArchive(command.why());
    short(command, wish).await
}

impl Command {
    fn why(&mut self) -> Why {
        self.confirmed();
        Why { reason: Some(self.needed_reason()) }
    }
}

async fn long(command: Command, wish: Rebuild) -> Result<Response, Problem> {
    let who = command.who();
    let app = command.finish()?;
    let turn = turn(&app)?;
    let act = wish.act(&who);
    begin(&app, act, turn, |tools, report| async move { carry(tools, &wish, &who, report).await })
        .await
}

async fn short(command: Command, wish: Rebuild) -> Result<Response, Problem> {
    let who = command.who();
    let app = command.finish()?;
    let (act, tools) = (wish.act(&who), app.ops.clone());
    carry_out(&app, act, async move { carry(tools, &wish, &who, silent()).await }).await
}
