//! The commands of `projector rebuild`: what is asked of an operator, and what is said.

use std::{io::Write as _, sync::Arc, time::Instant};

use anyhow::{Result, bail};
use clap::Subcommand;
use leadpulse_service::config::Config;
use serde_json::{Value, json};

use super::{Phase, Plan, Rebuild, Rebuilder, Report, Swapped};

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
    },
    /// Tell how far the present or the last rebuild is
    Status,
    /// End the present rebuild and drop what it made; the live tables were never touched
    Abort,
    /// Let the new tables, caught up, take the place of the live ones
    Swap,
    /// Put the old tables back, caught up; the rebuilt ones become the archive
    Rollback,
    /// Drop the tables that the last swap took out; there is no rollback afterwards
    DropArchive,
}

/// How an operator wants it.
pub struct Manner {
    pub json: bool,
    /// Do not ask.
    pub yes: bool,
    pub who: String,
}

pub async fn run(config: Config, command: Command, manner: &Manner) -> Result<()> {
    let tool = Rebuilder::open(config, progress(manner.json)).await?;
    match command {
        Command::Plan => show(manner, &plan_json(&tool.plan().await?), plan_text),
        Command::Start { swap, accept_loss } => {
            let plan = tool.plan().await?;
            if tool.status().await?.is_none_or(|last| over(last.phase)) {
                confirm(
                    manner,
                    &plan_text(&plan_json(&plan)),
                    "build the new tables beside them?",
                )?;
            }
            let rebuild = tool.start(&manner.who, accept_loss).await?;
            if swap {
                let swapped = tool.swap(&manner.who).await?;
                return show(manner, &swapped_json(&swapped), swapped_text);
            }
            show(manner, &rebuild_json(Some(&rebuild)), rebuild_text)
        }
        Command::Status => show(manner, &rebuild_json(tool.status().await?.as_ref()), rebuild_text),
        Command::Abort => {
            confirm(
                manner,
                "the tables that are being built are dropped; the live ones stay",
                "abort?",
            )?;
            show(manner, &rebuild_json(Some(&tool.abort().await?)), rebuild_text)
        }
        Command::Swap => {
            confirm(
                manner,
                "readers wait for some milliseconds; the old tables are kept",
                "swap?",
            )?;
            show(manner, &swapped_json(&tool.swap(&manner.who).await?), swapped_text)
        }
        Command::Rollback => {
            confirm(manner, "the old tables come back, with the events since", "roll back?")?;
            show(manner, &swapped_json(&tool.rollback(&manner.who).await?), swapped_text)
        }
        Command::DropArchive => {
            confirm(manner, "the old tables are dropped for good", "drop them?")?;
            tool.drop_archive().await?;
            show(manner, &json!({ "dropped": true }), |_| "the archive is dropped".to_owned())
        }
    }
}

fn over(phase: Phase) -> bool {
    matches!(phase, Phase::Swapped | Phase::RolledBack | Phase::Aborted)
}

/// Data on stdout, in one form or the other.
#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
fn show(manner: &Manner, value: &Value, text: fn(&Value) -> String) -> Result<()> {
    println!("{}", if manner.json { value.to_string() } else { text(value) });
    Ok(())
}

fn confirm(manner: &Manner, plan: &str, question: &str) -> Result<()> {
    if manner.yes {
        return Ok(());
    }
    eprint!("{plan}\n{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("nothing was changed (--yes answers for scripts)");
    }
    Ok(())
}

/// A line when something new begins, and every other second.
pub fn progress(json: bool) -> Report {
    let last = std::sync::Mutex::new(("", Instant::now()));
    Arc::new(move |what, done, total| {
        let Ok(mut last) = last.lock() else { return };
        if json || (last.0 == what && last.1.elapsed().as_secs() < 2 && done < total) {
            return;
        }
        *last = (what, Instant::now());
        eprintln!("{what}: {done} of {total}");
    })
}

fn plan_json(plan: &Plan) -> Value {
    json!({
        "first_seq": plan.first_seq,
        "last_seq": plan.last_seq,
        "events": plan.events,
        "leads": plan.leads,
        "events_per_second": plan.events_per_second.round(),
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
    let hash = |name: &str| plan[name].as_str().unwrap_or_default().to_owned();
    let mapping = if plan["mapping_of_tables"] == plan["mapping_of_today"] {
        format!("mapping    {}, the same as of the live tables", hash("mapping_of_today"))
    } else {
        format!("mapping    {} instead of {}", hash("mapping_of_today"), hash("mapping_of_tables"))
    };
    let mut text = format!(
        "events     {} ({} to {}), read at {} a second\nleads      about {}\ntime       about {} s\n\
         space      about {} MiB beside the live tables until the archive is dropped\n{mapping}\n\
         differs    {} of {} sampled rows mean something else under the labels of today; another choice of\n           \
         columns shows only in the rebuilt tables",
        plan["events"],
        plan["first_seq"],
        plan["last_seq"],
        plan["events_per_second"],
        plan["leads"],
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

pub fn rebuild_json(rebuild: Option<&Rebuild>) -> Value {
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
    })
}

fn swapped_text(swapped: &Value) -> String {
    format!(
        "swapped at sequence {}: readers were held up for {:.1} ms, try {}\n\
         next       projector rebuild drop-archive (or rollback)",
        swapped["seq"],
        swapped["lock_ms"].as_f64().unwrap_or(0.0),
        swapped["tries"],
    )
}
