//! `projector verify` on the command line.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;

use super::{Scope, Verdict, verify};
use crate::{cli::terminal::Terminal, ops::Tools, rebuild::command::progress};

pub(crate) const HELP: &str = "\
Examples:
  projector verify
  projector verify --board 9001
  projector verify --sample 1000 --json | jq '.differences[].key'
Of many differences the first 1,000 are named, with the events behind the first 100 leads; the others are counted.
Exit codes: 0 equal, 1 not equal.";

/// Fold the stream beside the tables and compare every row and field, while the projection goes on.
///
/// Says that they are equal at a sequence (exit 0), or names each row and field that is not, with the
/// events behind it (exit 1). Nothing is changed. A difference is mended by `projector rebuild-lead`
/// for one lead, by `projector rebuild` for many.
#[derive(Debug, Args)]
pub struct Command {
    /// Only this org
    #[arg(long)]
    org: Option<String>,
    /// Only the leads of this board; AgentMetrics and users are left out, they are of all boards
    #[arg(long)]
    board: Option<i64>,
    /// Only about this many leads, chosen at random by buckets; AgentMetrics and users are left out
    #[arg(long, value_name = "LEADS")]
    sample: Option<u32>,
}

/// Is everything equal?
pub(crate) async fn run(tools: &Tools, command: Command, terminal: Terminal) -> Result<bool> {
    let scope = Scope { org: command.org, board: command.board, sample: command.sample };
    let verdict = verify(Arc::clone(&tools.config), scope, progress(terminal)).await?;
    terminal.show(&verdict.to_json(), |_| text(&verdict))?;
    Ok(verdict.is_equal())
}

fn text(verdict: &Verdict) -> String {
    let mut lines = Vec::new();
    if let Some(hash) = &verdict.other_mapping {
        lines.push(format!(
            "the tables were made with another mapping ({hash}) than the one of today"
        ));
    }
    if verdict.older_states > 0 {
        lines.push(format!(
            "{} leads are right, but their states are of an older version that did not remember the events \
             behind a lead: `projector rebuild start` makes them anew",
            verdict.older_states
        ));
    }
    lines.extend(verdict.differences.iter().map(ToString::to_string));
    if verdict.more > 0 {
        lines.push(format!("… and {} more differences, which are only counted", verdict.more));
    }
    if verdict.leads_without_events > 0 {
        lines.push(format!(
            "{} of these leads stand without their events: `projector explain lead` tells them",
            verdict.leads_without_events
        ));
    }
    let compared = format!(
        "{} leads, {} rows of AgentMetrics ({} agents were being computed), {} users, {} dead letters",
        verdict.leads, verdict.agents, verdict.pending_agents, verdict.users, verdict.letters
    );
    let count = verdict.differences.len() as u64 + verdict.more;
    lines.push(match count {
        0 if verdict.older_states > 0 => {
            format!("equal but for the older states at sequence {}: {compared}", verdict.seq)
        }
        0 => format!("equal at sequence {}: {compared}", verdict.seq),
        _ => format!("{count} differences at sequence {}: {compared}", verdict.seq),
    });
    lines.join("\n")
}
