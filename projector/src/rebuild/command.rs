//! The commands of `projector rebuild`: what is asked of an operator, and what is said.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Phase, Plan, RESTING, Rebuild, Rebuilder, Report, Swapped};
use crate::{
    cli::terminal::Terminal,
    ops::{
        Tools,
        audit::{self, Act},
    },
};

pub(crate) const HELP: &str = "\
Examples:
  projector rebuild plan
  projector rebuild start --reason 'board 9001 counts label 1 as won'
  projector rebuild status
  projector rebuild swap
  projector rebuild drop-archive     or: projector rebuild rollback --reason 'it was right before'
A start that was interrupted is gone on with by the next one. While the live projection is behind it rests.";

/// Make the read models anew from the stream, beside the live ones, with the mapping of today.
///
/// A rebuild is the cure for a wrong mapping, for a mended fold and for tables that nobody trusts any
/// more. Dashboards go on reading the old tables until the new ones take their place in one short
/// transaction, and the old ones are kept for `rollback` until `drop-archive`.
///
/// The usual way: `plan`, `start`, `swap`, a look at the dashboards, `drop-archive`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tell what a rebuild would do: events, time, space, and what would differ
    Plan,
    /// Build the new tables, or go on where a former `start` stopped, until they are ready to swap
    Start {
        /// Swap at once when the new tables are ready
        #[arg(long)]
        swap: bool,
        /// Rebuild although the stream's beginning is gone: rows will not know what happened then
        #[arg(long)]
        accept_loss: bool,
        #[command(flatten)]
        why: Why,
    },
    /// Tell how far the present or the last rebuild is
    Status,
    /// End the present rebuild and drop what it made; the live tables were never touched
    Abort(Why),
    /// Let the new tables, caught up, take the place of the live ones
    Swap(Why),
    /// Put the old tables back, caught up; the rebuilt ones become the archive
    Rollback(Why),
    /// Drop the tables that the last swap took out; there is no rollback afterwards
    DropArchive(Why),
}

#[derive(Debug, Args)]
pub struct Why {
    /// Why, for the audit.
    #[arg(long)]
    pub reason: Option<String>,
}

impl Command {
    /// What is about to be done, for the audit.
    pub fn act(&self, who: &str) -> Act {
        let (command, why, _) = name(self);
        let (who, reason) = (who.to_owned(), why.reason.clone());
        Act { who, org_id: None, command, arguments: arguments(self), reason }
    }
}

pub(crate) async fn run(
    tools: Tools,
    command: Command,
    terminal: Terminal,
    who: &str,
) -> Result<()> {
    let tool = Rebuilder::open(tools, progress(terminal)).await?;
    match command {
        Command::Plan => terminal.show(&obey(&tool, &command, who).await?, plan_text),
        Command::Status => terminal.show(&obey(&tool, &command, who).await?, rebuild_text),
        command => {
            terminal.confirm(&intent(&tool, &command).await?)?;
            let (_, _, text) = name(&command);
            let work = Box::pin(obey(&tool, &command, who));
            let report = audit::audited(&tool.live, &command.act(who), work).await?;
            terminal.show(&report, text)
        }
    }
}

/// What is about to be done.
async fn intent(tool: &Rebuilder, command: &Command) -> Result<String> {
    Ok(match command {
        Command::Start { .. } => match tool.status().await? {
            Some(active) if !over(active.phase) => rebuild_text(&rebuild_json(Some(&active))),
            _ => plan_text(&plan_json(&tool.plan().await?)),
        },
        Command::Abort(_) => "What is being built is dropped; the live tables stay.".to_owned(),
        Command::Swap(_) => {
            "Readers wait for some milliseconds; the old tables are kept.".to_owned()
        }
        Command::Rollback(_) => "The old tables come back, with the events since.".to_owned(),
        Command::DropArchive(_) => "The old tables are dropped for good.".to_owned(),
        Command::Plan | Command::Status => String::new(),
    })
}

type Text = fn(&Value) -> String;

fn name(command: &Command) -> (&'static str, &Why, Text) {
    const NOBODY: &Why = &Why { reason: None };
    match command {
        Command::Start { swap: true, why, .. } => ("rebuild start --swap", why, swapped_text),
        Command::Start { why, .. } => ("rebuild start", why, rebuild_text),
        Command::Abort(why) => ("rebuild abort", why, rebuild_text),
        Command::Swap(why) => ("rebuild swap", why, swapped_text),
        Command::Rollback(why) => ("rebuild rollback", why, swapped_text),
        Command::DropArchive(why) => {
            ("rebuild drop-archive", why, |_| "the archive is dropped".to_owned())
        }
        Command::Plan | Command::Status => ("rebuild", NOBODY, rebuild_text),
    }
}

fn arguments(command: &Command) -> Value {
    match command {
        Command::Start { accept_loss, .. } => json!({ "accept_loss": accept_loss }),
        _ => json!({}),
    }
}

/// Does it; the report.
pub async fn obey(tool: &Rebuilder, command: &Command, who: &str) -> Result<Value> {
    Ok(match command {
        Command::Start { swap, accept_loss, .. } => {
            let rebuild = tool.start(who, *accept_loss).await?;
            if *swap { swapped_json(&tool.swap(who).await?) } else { rebuild_json(Some(&rebuild)) }
        }
        Command::Abort(_) => rebuild_json(Some(&tool.abort().await?)),
        Command::Swap(_) => swapped_json(&tool.swap(who).await?),
        Command::Rollback(_) => swapped_json(&tool.rollback(who).await?),
        Command::DropArchive(_) => {
            tool.drop_archive().await?;
            json!({ "dropped": true })
        }
        Command::Plan => plan_json(&tool.plan().await?),
        Command::Status => rebuild_json(tool.status().await?.as_ref()),
    })
}

fn over(phase: Phase) -> bool {
    matches!(phase, Phase::Swapped | Phase::RolledBack | Phase::Aborted)
}

/// A bar, or plain lines, for each piece of work in turn.
pub(crate) fn progress(terminal: Terminal) -> Report {
    let present = Mutex::new(None);
    Arc::new(move |what, done, total| {
        let mut present = present.lock().unwrap_or_else(PoisonError::into_inner);
        if present.as_ref().is_none_or(|(known, _)| *known != what) {
            *present = Some((what, terminal.progress(what, unit(what))));
        }
        if let Some((_, progress)) = present.as_ref() {
            progress.at(done, total);
        }
    })
}

/// What is counted in a piece of work.
fn unit(what: &str) -> &'static str {
    match what {
        "copying" | "checking" => "leads",
        "indexing" => "indexes",
        "waiting for a lock" => "tries",
        RESTING => "s at most",
        _ => "events",
    }
}

fn plan_json(plan: &Plan) -> Value {
    json!({
        "first_seq": plan.first_seq,
        "last_seq": plan.last_seq,
        "events": plan.events,
        "leads": plan.leads,
        "events_per_second": plan.events_per_second.round(),
        "passes": plan.passes,
        "memory_mib": plan.memory_mib,
        "expected_seconds": plan.expected.as_secs_f64().ceil(),
        "bytes": plan.bytes,
        "mapping_of_tables": plan.mapping_of_tables,
        "mapping_of_today": plan.mapping_of_today,
        "sampled_rows": plan.sampled_rows,
        "differing_rows": plan.differing_rows,
        "obstacles": plan.obstacles,
    })
}

fn plan_text(plan: &Value) -> String {
    let hash = |name: &str| plan[name].as_str().unwrap_or("none").to_owned();
    let mapping = if plan["mapping_of_tables"] == plan["mapping_of_today"] {
        format!("mapping    {}, the same as of the live tables", hash("mapping_of_today"))
    } else {
        format!("mapping    {} instead of {}", hash("mapping_of_today"), hash("mapping_of_tables"))
    };
    let mut text = format!(
        "events     {} ({} to {}), read at {} a second\nleads      about {}\n\
         passes     {} through the stream, with {} MiB (projector.rebuild_memory_mib)\ntime       about {} s\n\
         space      about {} MiB beside the live tables until the archive is dropped\n{mapping}\n\
         differs    {} of {} sampled rows mean something else under the labels of today; another choice of\n           \
         columns shows only in the rebuilt tables",
        plan["events"],
        plan["first_seq"],
        plan["last_seq"],
        plan["events_per_second"],
        plan["leads"],
        plan["passes"]
            .as_u64()
            .map_or_else(|| "1 or more".to_owned(), |passes| format!("about {passes}")),
        plan["memory_mib"],
        plan["expected_seconds"],
        plan["bytes"].as_i64().unwrap_or(0) >> 20,
        plan["differing_rows"],
        plan["sampled_rows"],
    );
    for obstacle in plan["obstacles"].as_array().into_iter().flatten() {
        text.push_str(&format!("\nobstacle   {}", obstacle.as_str().unwrap_or_default()));
    }
    text
}

fn rebuild_json(rebuild: Option<&Rebuild>) -> Value {
    let Some(rebuild) = rebuild else { return Value::Null };
    json!({
        "id": rebuild.id,
        "phase": rebuild.phase.to_string(),
        "over": over(rebuild.phase),
        "started_by": rebuild.started_by,
        "started_at": rebuild.started_at,
        "phase_since": rebuild.phase_at,
        "heartbeat_at": rebuild.heartbeat_at,
        "attempt": rebuild.attempt,
        "target_seq": rebuild.target_seq,
        "read_seq": rebuild.read_seq,
        "passes": rebuild.passes,
        "leads": rebuild.leads,
        "peak_memory_bytes": rebuild.peak_memory_bytes,
        "mapping": rebuild.mapping_hash,
        "swapped_at": rebuild.swapped_at,
        "swapped_seq": rebuild.swapped_seq,
        "swap_lock_ms": rebuild.swap_lock_ms,
        "swap_tries": rebuild.swap_tries,
    })
}

fn rebuild_text(rebuild: &Value) -> String {
    if rebuild.is_null() {
        return "nothing was rebuilt yet".to_owned();
    }
    let text = |name: &str| rebuild[name].as_str().unwrap_or_default().to_owned();
    let next = match text("phase").as_str() {
        "ready to swap" => "\nnext       projector rebuild swap",
        "swapped in" => "\nnext       projector rebuild drop-archive (or rollback)",
        _ => "",
    };
    format!(
        "rebuild {} is {} since {}\nby         {}, begun {}, attempt {}, heard of {}\n\
         folded     {} leads of {} events in {} passes, at most {} MiB\nmapping    {}{next}",
        rebuild["id"],
        text("phase"),
        text("phase_since"),
        text("started_by"),
        text("started_at"),
        rebuild["attempt"],
        text("heartbeat_at"),
        rebuild["leads"],
        rebuild["target_seq"],
        rebuild["passes"],
        rebuild["peak_memory_bytes"].as_i64().unwrap_or(0) >> 20,
        text("mapping"),
    )
}

fn swapped_json(swapped: &Swapped) -> Value {
    json!({
        "seq": swapped.seq,
        "lock_ms": swapped.lock.as_secs_f64() * 1000.0,
        "tries": swapped.tries,
        "skipped_since": swapped.skipped_since,
    })
}

fn swapped_text(swapped: &Value) -> String {
    let mut text = format!(
        "swapped at sequence {}: readers were held up for {:.1} ms, try {}\n\
         next       projector rebuild drop-archive (or rollback)",
        swapped["seq"],
        swapped["lock_ms"].as_f64().unwrap_or(0.0),
        swapped["tries"],
    );
    if let Some(letters @ 1..) = swapped["skipped_since"].as_i64() {
        text.push_str(&format!(
            "\n! {letters} letters were skipped since, and their events are in these tables: `projector verify` \
             names their leads, `projector rebuild-lead` makes them right"
        ));
    }
    text
}
