//! Dead letters of the whole instance, also those of no org: nobody can read them, so nobody can tell whose
//! they are.

use axum::response::Response;
use projector::ops::dead_letters::{self, Filter};
use serde_json::json;

use super::{
    super::{
        mend::{retry_letters, skip_letters},
        report::{respond, told},
    },
    Command,
};
use crate::{
    asked::Asked,
    params::{id, text},
    problem::Problem,
};

impl Command {
    fn filter(&mut self) -> Filter {
        Filter {
            org: self.params.one("org", text),
            board: self.params.one("board", id),
            item: self.params.one("lead", id),
            kind: self.params.one("kind", text),
            error: self.params.one("error", text),
            seq: self.params.many("seq", id),
            earlier: self.flag("earlier"),
        }
    }

    /// A dry run needs no confirmation.
    fn dry_run_or_confirmed(&mut self) -> bool {
        let dry_run = self.flag("dry_run");
        match dry_run {
            true => drop(self.flag("confirm")),
            false => self.confirmed(),
        }
        dry_run
    }
}

pub(crate) async fn list(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let filter = command.filter();
    let app = command.finish()?;
    respond(&json!({ "items": dead_letters::list(&app.ops, &filter).await? }))
}

pub(crate) async fn show(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let seq = command.params.one("seq", id).unwrap_or_default();
    let earlier = command.flag("earlier");
    let app = command.finish()?;
    let shown = dead_letters::show(&app.ops, seq, earlier, None).await.map_err(told)?;
    respond(&shown.ok_or(Problem::NotFound)?)
}

pub(crate) async fn retry(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let (filter, dry_run) = (command.filter(), command.dry_run_or_confirmed());
    let reason = command.reason();
    let act = command.act("dead-letters retry", json!({ "filter": filter }), reason);
    retry_letters(command.finish()?, act, filter, dry_run).await
}

/// Nobody means to give up everything: something must narrow it.
pub(crate) async fn skip(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let (filter, dry_run) = (command.filter(), command.dry_run_or_confirmed());
    let reason = command.needed_reason();
    if !filter.narrows() {
        command.params.fault("seq", "is missing, or org, board, lead, kind, error: which letters?");
    }
    let act = command.act("dead-letters skip", json!({ "filter": filter }), Some(reason.clone()));
    skip_letters(command.finish()?, act, filter, reason, dry_run).await
}
