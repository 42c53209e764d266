//! The commands that mend: dead letters, single leads, parts of the stream.

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use leadpulse_nats::{Kind, instant};
use serde_json::json;

use super::{operate::Operator, text};
use crate::{
    event::LeadKey,
    ops::{
        Usage,
        dead_letters::{self, Filter},
        repair::{self, Wanted},
    },
    reader::range::{Edge, Select},
};

pub(super) const LETTERS_HELP: &str = "\
An event that Postgres refuses is parked with all later ones of its lead; the other leads go on. Mend the
cause, then apply them again in order:
  projector dead-letters list
  projector dead-letters show 4711
  projector dead-letters retry --error 'check constraint' --dry-run
  projector dead-letters retry --board 9001 --yes
  projector dead-letters skip --seq 4711 --reason 'sent by a broken script'";

#[derive(Debug, Subcommand)]
pub(super) enum LettersCommand {
    /// List the waiting letters, grouped by error.
    List {
        #[command(flatten)]
        filter: Filter,
    },
    /// Show one letter whole, with its message.
    Show {
        /// Its sequence in the stream.
        seq: i64,
        /// In an earlier stream, which was recreated since.
        #[arg(long)]
        earlier: bool,
    },
    /// Let the live projection apply them again, each lead's in order.
    Retry {
        #[command(flatten)]
        filter: Filter,
        /// All of them.
        #[arg(long)]
        all: bool,
        /// Only count.
        #[arg(long)]
        dry_run: bool,
        /// Letters a second at most.
        #[arg(long, default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        rate: u16,
        /// Why, for the audit.
        #[arg(long)]
        reason: Option<String>,
    },
    /// Give them up: no retry, replay or rebuild will ever apply them.
    Skip {
        #[command(flatten)]
        filter: Filter,
        /// Why, for the letters themselves and for the audit.
        #[arg(long)]
        reason: String,
        /// Only count.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(super) const LEAD_HELP: &str = "\
Examples:
  projector rebuild-lead 9001 42 --dry-run
  projector rebuild-lead 9001 42 --reason 'its row was damaged'";

pub(super) const REPLAY_HELP: &str = "\
Applying an event twice changes nothing, so a replay changes only what is not as it should be: rows that were
damaged, and the figures of their agents. A lead without a usable row is made from all its events.
  projector replay --board 9001 --dry-run
  projector replay --from-time 2026-03-02T10:00:00Z --to-time 2h --dry-run --json
  projector replay --from-seq 1000 --to-seq 2000 --kind update_column_value --reason 'restored a backup'
Times are those at which the stream stored the events; a time ends before itself.";

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// From this sequence on.
    #[arg(long, value_name = "SEQ", conflicts_with = "from_time")]
    from_seq: Option<u64>,
    /// From this instant on, such as 2026-03-02T10:00:00Z, or an age such as 90m, 2h, 3d.
    #[arg(long, value_name = "TIME", value_parser = instant::parse_or_age)]
    from_time: Option<DateTime<Utc>>,
    /// Up to this sequence.
    #[arg(long, value_name = "SEQ", conflicts_with = "to_time")]
    to_seq: Option<u64>,
    /// Before this instant, or an age.
    #[arg(long, value_name = "TIME", value_parser = instant::parse_or_age)]
    to_time: Option<DateTime<Utc>>,
    /// Of this org.
    #[arg(long)]
    org: Option<String>,
    /// Of this board.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    board: Option<i64>,
    /// Of this item.
    #[arg(long, value_name = "ITEM", allow_hyphen_values = true)]
    lead: Option<i64>,
    /// Of this kind, such as `update_column_value`.
    #[arg(long)]
    kind: Option<String>,
    /// Only tell which rows and figures would change, and how.
    #[arg(long)]
    dry_run: bool,
    /// Why, for the audit.
    #[arg(long)]
    reason: Option<String>,
}

impl ReplayArgs {
    fn wanted(&self) -> Wanted {
        let edge = |seq: Option<u64>, time: Option<DateTime<Utc>>| {
            seq.map(Edge::Seq).or_else(|| time.map(Edge::Time))
        };
        Wanted {
            from: edge(self.from_seq, self.from_time),
            to: edge(self.to_seq, self.to_time),
            select: Select {
                org: self.org.clone(),
                board: self.board,
                item: self.lead,
                kind: self.kind.as_deref().map(Kind::of),
            },
            whole: false,
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "from_seq": self.from_seq, "from_time": self.from_time, "to_seq": self.to_seq,
            "to_time": self.to_time, "org": self.org, "board": self.board, "lead": self.lead,
            "kind": self.kind,
        })
    }
}

/// Which lead.
#[derive(Debug, Args)]
pub(super) struct LeadArgs {
    /// The board.
    #[arg(allow_hyphen_values = true)]
    board: i64,
    /// The item.
    #[arg(allow_hyphen_values = true)]
    item: i64,
    /// The org, where several have mapped the board.
    #[arg(long)]
    org: Option<String>,
}

impl LeadArgs {
    pub(super) fn key(&self, tools: &crate::ops::Tools) -> Result<LeadKey> {
        let org_id = match &self.org {
            Some(org) => org.clone(),
            None => repair::org_of_board(tools, self.board)?,
        };
        Ok(LeadKey { org_id, board_id: self.board, item_id: self.item })
    }
}

impl Operator {
    pub(super) async fn dead_letters(&self, command: LettersCommand) -> Result<()> {
        self.tools.check_schema().await?;
        match command {
            LettersCommand::List { filter } => {
                let groups = dead_letters::list(&self.tools, &filter).await?;
                self.terminal.show(&groups, |groups| text::letters(groups))
            }
            LettersCommand::Show { seq, earlier } => {
                match dead_letters::show(&self.tools, seq, earlier, None).await? {
                    Some(letter) => self.terminal.show(&letter, text::letter),
                    None => bail!(
                        "there is no letter {seq}: `projector dead-letters list` shows what there is"
                    ),
                }
            }
            LettersCommand::Retry { filter, all, dry_run, rate, reason } => {
                if !all && !filter.narrows() {
                    bail!(Usage("which ones? --all, or some of --org, --board, --lead, --kind, --error, --seq".into()));
                }
                self.retry(&filter, dry_run, rate, reason).await
            }
            LettersCommand::Skip { filter, reason, dry_run } => {
                if !filter.narrows() {
                    bail!(Usage(
                        "which ones? some of --org, --board, --lead, --kind, --error, --seq".into()
                    ));
                }
                self.skip(&filter, reason, dry_run).await
            }
        }
    }

    async fn retry(
        &self,
        filter: &Filter,
        dry_run: bool,
        rate: u16,
        reason: Option<String>,
    ) -> Result<()> {
        let count = dead_letters::count(&self.tools, filter).await?;
        if dry_run || count.letters == 0 {
            return self.terminal.show(&count, text::count);
        }
        let plan = format!(
            "{} letters of {} leads, and all that waits behind them, are applied again in order, {rate} a second.",
            count.letters, count.leads
        );
        self.terminal.confirm(&plan)?;
        let progress = self.terminal.progress("retrying", "letters");
        let arguments = json!({ "filter": filter, "rate": rate });
        let act = self.act("dead-letters retry", arguments, reason);
        let watch = |done, total| progress.at(done, total);
        let work = dead_letters::retry(&self.tools, filter, usize::from(rate), &watch);
        let retried = self.audited(&act, work).await?;
        drop(progress);
        self.terminal.show(&retried, text::retried)?;
        if retried.refused > 0 {
            bail!("{} letters were refused again and wait on", retried.refused);
        }
        Ok(())
    }

    async fn skip(&self, filter: &Filter, reason: String, dry_run: bool) -> Result<()> {
        let count = dead_letters::count(&self.tools, filter).await?;
        if dry_run || count.letters == 0 {
            return self.terminal.show(&count, text::count);
        }
        let plan = format!(
            "{} letters of {} leads are given up: their events are never applied, by no retry, replay or rebuild.",
            count.letters, count.leads
        );
        self.terminal.confirm(&plan)?;
        let act = self.act("dead-letters skip", json!({ "filter": filter }), Some(reason.clone()));
        let skipped = self.audited(&act, dead_letters::skip(&self.tools, filter, &reason)).await?;
        self.terminal.show(&skipped, text::skipped)
    }

    pub(super) async fn replay(&self, args: ReplayArgs) -> Result<()> {
        self.tools.check_schema().await?;
        let wanted = args.wanted();
        let progress = self.terminal.progress("folding", "events");
        let watch = |done, total| progress.at(done, total);
        let planned = Box::pin(repair::replay(&self.tools, &wanted, true, &watch)).await?;
        drop(progress);
        let nothing = planned.lead_changes.is_empty()
            && planned.user_changes.is_empty()
            && planned.agent_changes.is_empty();
        if args.dry_run || nothing {
            return self.terminal.show(&planned, text::repaired);
        }
        self.terminal.confirm(&text::repaired(&planned))?;
        let progress = self.terminal.progress("folding", "events");
        let watch = |done, total| progress.at(done, total);
        let act = self.act("replay", args.json(), args.reason.clone());
        let work = Box::pin(repair::replay(&self.tools, &wanted, false, &watch));
        let repaired = self.audited(&act, work).await?;
        drop(progress);
        self.terminal.show(&repaired, text::repaired)
    }

    pub(super) async fn rebuild_lead(
        &self,
        lead: &LeadArgs,
        dry_run: bool,
        reason: Option<String>,
    ) -> Result<()> {
        self.tools.check_schema().await?;
        let key = lead.key(&self.tools)?;
        let planned = Box::pin(repair::rebuild_lead(&self.tools, &key, true)).await?;
        if dry_run || (planned.lead_changes.is_empty() && planned.agent_changes.is_empty()) {
            return self.terminal.show(&planned, text::repaired);
        }
        self.terminal.confirm(&text::repaired(&planned))?;
        let arguments = json!({ "org": key.org_id, "board": key.board_id, "item": key.item_id });
        let act = self.act("rebuild-lead", arguments, reason);
        let work = Box::pin(repair::rebuild_lead(&self.tools, &key, false));
        let repaired = self.audited(&act, work).await?;
        self.terminal.show(&repaired, text::repaired)
    }
}
