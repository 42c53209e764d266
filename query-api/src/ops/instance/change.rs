//! The projection stands still, goes on, begins elsewhere; a part of the stream is applied again; the
//! tables are compared with the stream.

use axum::response::Response;
use chrono::{DateTime, Utc};
use leadpulse_nats::{Kind, instant::parse_or_age};
use projector::{
    ops::{
        checkpoint::{self, Move},
        pause as pauses,
        repair::{self, Wanted},
    },
    reader::range::{Edge, Select},
    verify as verifies,
};
use serde_json::json;

use super::{super::mend::carry_out, Command, begin, turn};
use crate::{
    asked::Asked,
    params::{id, text},
    problem::Problem,
};

pub(crate) async fn pause(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    command.confirmed();
    let reason = command.needed_reason();
    let (act, who) = (command.act("pause", json!({}), Some(reason.clone())), command.who());
    let app = command.finish()?;
    let tools = app.ops.clone();
    carry_out(&app, act, async move {
        tools.check_schema().await?;
        pauses::pause(&tools.pool, &who, &reason).await
    })
    .await
}

pub(crate) async fn resume(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let reason = command.reason();
    let act = command.act("resume", json!({}), reason);
    let app = command.finish()?;
    let tools = app.ops.clone();
    carry_out(&app, act, async move {
        tools.check_schema().await?;
        let lifted = pauses::resume(&tools.pool).await?;
        Ok(json!({ "lifted": lifted }))
    })
    .await
}

/// The position that is expected takes the place of a question.
pub(crate) async fn set_checkpoint(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let to = command.params.number("to_seq", 0, u64::MAX >> 1);
    let expect = command.params.number("expect", 0, u64::MAX >> 1);
    for (name, there) in [("to_seq", to.is_some()), ("expect", expect.is_some())] {
        if !there {
            command.params.fault(name, "is missing");
        }
    }
    let adopt_stream = command.flag("adopt_stream");
    let reason = command.needed_reason();
    let (to, expect) = (to.unwrap_or_default(), expect.unwrap_or_default());
    let arguments = json!({ "seq": to, "expect": expect, "adopt_stream": adopt_stream });
    let act = command.act("checkpoint set", arguments, Some(reason));
    let app = command.finish()?;
    let tools = app.ops.clone();
    carry_out(&app, act, async move {
        tools.check_schema().await?;
        checkpoint::set(&tools, Move { to, expect, adopt_stream }).await
    })
    .await
}

impl Command {
    /// One end of a part of the stream: a sequence or an instant.
    pub(super) fn edge(&mut self, seq: &'static str, time: &'static str) -> Option<Edge> {
        let at: Option<DateTime<Utc>> = self.params.one(time, parse_or_age);
        let number: Option<u64> = self.params.number(seq, 0, u64::MAX >> 1);
        if at.is_some() && number.is_some() {
            self.params.fault(time, format!("and `{seq}` are two answers to one question"));
        }
        number.map(Edge::Seq).or(at.map(Edge::Time))
    }

    pub(super) fn select(&mut self) -> Select {
        Select {
            org: self.params.one("org", text),
            board: self.params.one("board", id),
            item: self.params.one("lead", id),
            kind: self.params.one("kind", text).map(|kind| Kind::of(&kind)),
        }
    }
}

/// A dry run needs no confirmation, and leaves its prediction in the audit as the replay does its report.
pub(crate) async fn replay(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let dry_run = command.flag("dry_run");
    let (from, to) = (command.edge("from_seq", "since"), command.edge("to_seq", "until"));
    let wanted = Wanted { from, to, select: command.select(), whole: false };
    match dry_run {
        true => drop(command.flag("confirm")),
        false => command.confirmed(),
    }
    let reason = command.reason();
    let arguments = json!({ "wanted": format!("{wanted:?}"), "dry_run": dry_run });
    let act = command.act("replay", arguments, reason);
    let app = command.finish()?;
    let turn = turn(&app)?;
    begin(&app, act, turn, |tools, report| async move {
        tools.check_schema().await?;
        let watch = |done, total| report("folding", done, total);
        Box::pin(repair::replay(&tools, &wanted, dry_run, &watch)).await
    })
    .await
}

/// Changes nothing; its verdict is in the audit row, because it may take long.
pub(crate) async fn verify(asked: Asked) -> Result<Response, Problem> {
    let mut command = Command::of(asked).await?;
    let scope = verifies::Scope {
        org: command.params.one("org", text),
        board: command.params.one("board", id),
        sample: command.params.number("sample", 1, u32::MAX),
    };
    let arguments = json!({ "org": scope.org, "board": scope.board, "sample": scope.sample });
    let act = command.act("verify", arguments, None);
    let app = command.finish()?;
    let turn = turn(&app)?;
    begin(&app, act, turn, |tools, report| async move {
        let verdict = verifies::verify(tools.config, scope, report).await?;
        Ok(verdict.to_json())
    })
    .await
}
