//! The operators' commands: arguments, plans and questions around the functions of `ops`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Result;
use clap::{Args, Subcommand};
use leadpulse_service::config::Config;
use serde::Serialize;
use serde_json::{Value, json};

use super::{terminal::Terminal, text};
use crate::{
    ops::{
        Tools,
        audit::{self, Act},
        checkpoint::{self, Move},
        pause, status,
    },
    rebuild, verify,
};

pub(super) const STATUS_HELP: &str = "\
Asked of the stream and of Postgres, not of the projector: right also when no projector runs.
  projector status
  projector status --watch
  projector status --json | jq '.lag.seconds, .findings[].cure'
Exit codes: 0 all is well, 1 something is wrong (the lines with `!`).";

pub(super) const CHECKPOINT_HELP: &str = "\
Examples:
  projector checkpoint show
  projector pause --reason 'a restored backup'
  projector checkpoint set 28000 --expect 29306 --reason 'a restored backup'
  projector resume --reason 'a restored backup'";

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// Why, for the audit and for those who find the projection paused.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Subcommand)]
pub(super) enum CheckpointCommand {
    /// Show the position, lane by lane.
    Show,
    /// Move the position. Only while nobody projects: `projector pause` first.
    ///
    /// Back is harmless: the events are applied once more, which changes nothing. Forward leaves events
    /// out for ever, unless the position is set back again or the read models are rebuilt.
    Set {
        /// The events up to here count as applied.
        seq: u64,
        /// Where the projection is now; if it is elsewhere, nothing is changed.
        #[arg(long)]
        expect: u64,
        /// Why, for the audit.
        #[arg(long)]
        reason: String,
        /// Go on with a stream that was recreated.
        #[arg(long)]
        adopt_stream: bool,
    },
}

/// Somebody at a terminal, or a script.
pub(super) struct Operator {
    pub(super) tools: Tools,
    pub(super) terminal: Terminal,
    who: String,
}

impl Operator {
    pub(super) async fn open(config: Config, terminal: Terminal, who: String) -> Result<Self> {
        Ok(Self { tools: Tools::connect(Arc::new(config)).await?, terminal, who })
    }

    /// What is about to be done, for the audit.
    pub(super) fn act(
        &self,
        command: &'static str,
        arguments: Value,
        reason: Option<String>,
    ) -> Act {
        Act { who: self.who.clone(), org_id: None, command, arguments, reason }
    }

    pub(super) async fn audited<T: Serialize>(
        &self,
        act: &Act,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        audit::audited(&self.tools.pool, act, work).await
    }

    pub(super) async fn status(&self, watch: bool) -> Result<ExitCode> {
        loop {
            let status = status::status(&self.tools, None).await;
            self.terminal.show(&status, text::status)?;
            if !watch {
                let well = status.findings.is_empty();
                return Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(super) async fn pause(&self, args: PauseArgs) -> Result<()> {
        self.tools.check_schema().await?;
        self.terminal.confirm(
            "The projection stands still until `projector resume`: dashboards go on reading, their figures \
             grow old, and the stream keeps what comes.",
        )?;
        let act = self.act("pause", json!({}), Some(args.reason.clone()));
        let work = pause::pause(&self.tools.pool, &act.who, &args.reason);
        let paused = self.audited(&act, work).await?;
        self.terminal.show(&paused, ToString::to_string)
    }

    pub(super) async fn resume(&self, reason: Option<String>) -> Result<()> {
        self.tools.check_schema().await?;
        let act = self.act("resume", json!({}), reason);
        let lifted = self.audited(&act, pause::resume(&self.tools.pool)).await?;
        self.terminal.show(&lifted, |lifted| match lifted {
            Some(_) => "the projection goes on".to_owned(),
            None => "the projection was not paused".to_owned(),
        })
    }

    pub(super) async fn checkpoint(&self, command: CheckpointCommand) -> Result<()> {
        self.tools.check_schema().await?;
        let CheckpointCommand::Set { seq, expect, reason, adopt_stream } = command else {
            let shown = checkpoint::show(&self.tools.pool).await?;
            return self.terminal.show(&shown, text::checkpoint);
        };
        let wanted = Move { to: seq, expect, adopt_stream };
        let planned = checkpoint::plan(&self.tools, wanted).await?;
        self.terminal.confirm(&text::planned_move(&planned))?;
        let arguments = json!({ "seq": seq, "expect": expect, "adopt_stream": adopt_stream });
        let act = self.act("checkpoint set", arguments, Some(reason));
        let moved = self.audited(&act, checkpoint::set(&self.tools, wanted)).await?;
        self.terminal.show(&moved, |moved| format!("the position is {}", moved.to_seq))
    }

    pub(super) async fn rebuild(self, command: rebuild::command::Command) -> Result<()> {
        rebuild::command::run(self.tools, command, self.terminal, &self.who).await
    }

    pub(super) async fn verify(&self, command: verify::command::Command) -> Result<ExitCode> {
        let equal = verify::command::run(&self.tools, command, self.terminal).await?;
        Ok(if equal { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    pub(super) async fn audit(&self, limit: i64) -> Result<()> {
        self.tools.check_schema().await?;
        let entries = audit::entries(&self.tools.pool, None, limit).await?;
        self.terminal.show(&entries, |entries| text::audit(entries))
    }
}
