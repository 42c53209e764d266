//! Reports as text for people.

mod explained;
mod letters;
mod repaired;
mod status;

use std::fmt::Write as _;

use chrono::{DateTime, SecondsFormat, Utc};

use super::terminal::table;
use crate::ops::{
    audit::Entry,
    checkpoint::{Checkpoint, Moved},
    transfer::{Exported, Imported},
};
pub(super) use explained::{explained_agent, explained_lead};
pub(super) use letters::{count, letter, letters, retried, skipped};
pub(super) use repaired::repaired;
pub(super) use status::status;

/// Leads or changes that are written out; the rest is counted.
const SHOWN: usize = 50;

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

pub(super) fn checkpoint(checkpoint: &Checkpoint) -> String {
    let mut rows = vec![row(["lane", "seq", "fence", "moved"])];
    for lane in &checkpoint.lanes {
        let cells = [lane.lane.to_string(), lane.seq.to_string(), lane.fence.to_string()];
        let [number, seq, fence] = &cells;
        rows.push(row([number, seq, fence, &instant(lane.updated_at)]));
    }
    format!("applied {}\n{}", checkpoint.applied_seq, table(&rows))
}

pub(super) fn planned_move(moved: &Moved) -> String {
    let effect = match (moved.again, moved.skipped) {
        (0, 0) => "No event is applied again or left out.".to_owned(),
        (again, 0) => format!("{again} events are applied once more, which changes nothing."),
        (_, skipped) => format!(
            "{skipped} EVENTS ARE NEVER APPLIED: the read models will be wrong about their leads until a \
             rebuild."
        ),
    };
    let adopted = if moved.stream_adopted { " The recreated stream is adopted." } else { "" };
    format!("The position moves from {} to {}. {effect}{adopted}", moved.from_seq, moved.to_seq)
}

pub(super) fn audit(entries: &[Entry]) -> String {
    let mut rows = vec![row(["started", "who", "command", "arguments", "why", "outcome"])];
    for entry in entries {
        let outcome = match (entry.succeeded, &entry.result) {
            (None, _) => "not ended".to_owned(),
            (Some(true), _) => "done".to_owned(),
            (Some(false), result) => {
                format!("failed: {}", result.as_ref().and_then(|r| r.as_str()).unwrap_or_default())
            }
        };
        rows.push(row([
            &instant(entry.started_at),
            &entry.who,
            &entry.command,
            &entry.arguments.to_string(),
            entry.reason.as_deref().unwrap_or_default(),
            &outcome,
        ]));
    }
    table(&rows)
}

pub(super) fn exported(report: &Exported) -> String {
    let Exported { from_seq, to_seq, messages, unreadable, masked } = report;
    let mut text = format!("{messages} messages from {from_seq} to {to_seq}");
    if *unreadable > 0 {
        let fate = if *masked { "left out: nobody can mask them" } else { "exported as they are" };
        let _ = write!(text, "\n{unreadable} messages are no envelope and were {fate}");
    }
    text
}

pub(super) fn imported(report: &Imported) -> String {
    let Imported { messages, published, known, .. } = report;
    format!("{messages} messages: {published} published, {known} were in the stream already")
}
