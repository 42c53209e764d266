//! Reports as text for people.

use std::{collections::BTreeMap, fmt::Write as _};

use chrono::{DateTime, SecondsFormat, Utc};

use super::terminal::table;
use crate::ops::{
    audit::Entry,
    checkpoint::{Checkpoint, Moved},
    dead_letters::{Count, Group, Retried, Shown, Skipped},
    explain::{ExplainedAgent, ExplainedLead},
    repair::{AgentChange, FieldChange, LeadChange, Repaired},
    status::{ProjectionStatus, Status, StreamStatus},
    transfer::{Exported, Imported},
};

pub(super) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

pub(super) fn status(status: &Status) -> String {
    let mut rows = Vec::new();
    if let Some(stream) = &status.stream {
        rows.extend(stream_rows(stream));
    }
    if let Some(projection) = &status.projection {
        rows.extend(projection_rows(projection));
    }
    if let Some(lag) = status.lag {
        let seconds = lag.seconds.map_or_else(|| "unknown".to_owned(), |s| format!("{s:.1} s"));
        rows.push(row(["lag", &format!("{} events, {seconds}", lag.events)]));
    }
    if let Some(rates) = status.rates {
        let text = format!(
            "{:.0} events a second arrive, {:.0} are applied",
            rates.arriving_per_second, rates.applied_per_second
        );
        rows.push(row(["rates", &text]));
    }
    let mut text = table(&rows);
    if status.findings.is_empty() {
        text.push_str("all is well\n");
    }
    for finding in &status.findings {
        // Writing to a string can't fail.
        let _ = writeln!(text, "! {}\n  → {}", finding.what, finding.cure);
    }
    text
}

fn stream_rows(stream: &StreamStatus) -> Vec<Vec<String>> {
    let text = format!(
        "{} from {} to {}, {} messages, {} MiB",
        stream.name,
        stream.first_seq,
        stream.last_seq,
        stream.messages,
        stream.bytes >> 20
    );
    let mut rows = vec![row(["stream", &text])];
    for consumer in &stream.consumers {
        let text = format!(
            "{} ({}) delivered {}, pending {}",
            consumer.name,
            consumer.description.as_deref().unwrap_or("no description"),
            consumer.delivered_seq,
            consumer.pending
        );
        rows.push(row(["consumer", &text]));
    }
    rows
}

fn projection_rows(projection: &ProjectionStatus) -> Vec<Vec<String>> {
    let mut rows = vec![row(["applied", &projection.applied_seq.to_string()])];
    for lane in &projection.lanes {
        let text = format!("{} at {}, fence {}", lane.lane, lane.seq, lane.fence);
        rows.push(row(["lane", &text]));
    }
    if let Some(owner) = &projection.owner {
        let (state, until) = if owner.alive { ("alive", "until") } else { ("gone", "since") };
        let text = format!("{} {state}, {until} {}", owner.owner, instant(owner.expires_at));
        rows.push(row(["owner", &text]));
    }
    if let Some(pause) = &projection.paused {
        rows.push(row(["paused", &pause.to_string()]));
    }
    if let Some(phase) = &projection.rebuild {
        rows.push(row(["rebuild", phase]));
    }
    let parked = format!(
        "{} leads, {} letters, {} of them unreadable",
        projection.parked_leads, projection.parked_letters, projection.unreadable_letters
    );
    rows.push(row(["parked", &parked]));
    let agents = format!(
        "{} dirty, {} rows overtaken by the clock",
        projection.dirty_agents, projection.stale_rows
    );
    rows.push(row(["agents", &agents]));
    rows
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

pub(super) fn letters(groups: &[Group]) -> String {
    if groups.is_empty() {
        return "nothing is parked\n".to_owned();
    }
    let mut rows =
        vec![row(["letters", "leads", "org", "board", "first", "last", "since", "error"])];
    for group in groups {
        rows.push(row([
            &group.letters.to_string(),
            &group.leads.to_string(),
            group.org_id.as_deref().unwrap_or("?"),
            &group.board_id.map_or_else(|| "?".to_owned(), |id| id.to_string()),
            &group.first_seq.to_string(),
            &group.last_seq.to_string(),
            &instant(group.first_parked_at),
            &group.error,
        ]));
    }
    table(&rows)
}

pub(super) fn letter(letter: &Shown) -> String {
    let id = |id: Option<i64>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    let state = match &letter.resolution {
        Some(resolution) => resolution.clone(),
        None if letter.retry_requested_at.is_some() => "a retry is asked for".to_owned(),
        None => "waiting".to_owned(),
    };
    let rows = [
        ("seq", letter.seq.to_string()),
        (
            "lead",
            format!("{} {} {}", text(&letter.org_id), id(letter.board_id), id(letter.item_id)),
        ),
        ("event", format!("{} {}", text(&letter.kind), text(&letter.event_id))),
        ("error", letter.error.clone()),
        ("parked", instant(letter.parked_at)),
        ("state", state),
        ("of the lead", format!("{:?}", letter.waiting_of_lead)),
    ];
    let rows: Vec<_> = rows.iter().map(|(name, value)| row([name, value])).collect();
    format!("{}\n{:#}", table(&rows), letter.payload)
}

pub(super) fn count(count: &Count) -> String {
    format!("{} letters of {} leads", count.letters, count.leads)
}

pub(super) fn retried(retried: &Retried) -> String {
    let Retried { requested, applied, refused, refusals } = retried;
    let mut text = format!("{requested} letters: {applied} applied, {refused} refused again\n");
    for refusal in refusals {
        let _ = writeln!(text, "! {}: {}", refusal.seq, refusal.error);
    }
    text
}

pub(super) fn skipped(skipped: &Skipped) -> String {
    let mut text = format!("{} letters are given up", skipped.letters);
    if skipped.still_waiting > 0 {
        let _ = write!(
            text,
            "\n{} later letters of their leads wait on: `projector dead-letters retry` applies them",
            skipped.still_waiting
        );
    }
    text
}

/// Changes that are written out; the rest is counted.
const SHOWN: usize = 50;

pub(super) fn repaired(repaired: &Repaired) -> String {
    let verb = if repaired.dry_run { "would change" } else { "changed" };
    let mut text = format!(
        "{} events of {} leads from {} to {}: {} rows, {} users, {} rows of figures {verb}\n",
        repaired.events,
        repaired.leads,
        repaired.from_seq,
        repaired.to_seq,
        repaired.lead_changes.len(),
        repaired.user_changes.len(),
        repaired.agent_changes.len(),
    );
    let mut left = SHOWN;
    let mut write = |title: String, fields: &BTreeMap<String, FieldChange>| {
        if left == 0 {
            return;
        }
        left -= 1;
        let _ = writeln!(text, "{title}");
        for (name, change) in fields {
            let _ = writeln!(text, "  {name}: {} → {}", change.from, change.to);
        }
    };
    for change in &repaired.lead_changes {
        let how = match (change.created, change.whole) {
            (true, _) => " (missing, from all its events)",
            (false, true) => " (from all its events)",
            (false, false) => "",
        };
        let LeadChange { org_id, board_id, item_id, .. } = change;
        write(format!("lead {org_id} {board_id} {item_id}{how}"), &change.fields);
    }
    for change in &repaired.user_changes {
        write(format!("user {} {}", change.org_id, change.user_id), &change.fields);
    }
    for change in &repaired.agent_changes {
        let AgentChange { org_id, agent_id, window_days, fields } = change;
        write(format!("agent {org_id} {agent_id}, {window_days} days"), fields);
    }
    let all =
        repaired.lead_changes.len() + repaired.user_changes.len() + repaired.agent_changes.len();
    if all > SHOWN {
        let _ = writeln!(text, "… and {} more; --json has all", all - SHOWN);
    }
    text
}

pub(super) fn explained_lead(lead: &ExplainedLead) -> String {
    let mut rows = vec![row(["field", "value", "because of", "event"])];
    for field in &lead.fields {
        let events: Vec<String> = field
            .causes
            .iter()
            .map(|cause| format!("{} {} at {}", cause.seq, cause.kind, instant(cause.occurred_at)))
            .collect();
        let value = match &field.stored {
            Some(stored) => format!("{} (THE TABLE HAS {stored})", field.value),
            None => field.value.to_string(),
        };
        rows.push(row([&field.field, &value, field.because, &events.join("; ")]));
    }
    format!(
        "{} {} {}: {} events, {} left out\n{}",
        lead.org_id,
        lead.board_id,
        lead.item_id,
        lead.events,
        lead.left_out,
        table(&rows)
    )
}

pub(super) fn explained_agent(agent: &ExplainedAgent) -> String {
    let mut rows = vec![row(["board", "item", "name", "contributes", ""])];
    for lead in agent.leads.iter().take(SHOWN) {
        rows.push(row([
            &lead.board_id.to_string(),
            &lead.item_id.to_string(),
            lead.name.as_deref().unwrap_or_default(),
            &lead.contributes.to_string(),
            if lead.decides { "← decides" } else { "" },
        ]));
    }
    let mut text = format!(
        "{} of agent {} over {} days: {} from {} leads at {} (stored: {})\n{}\n{}",
        agent.metric,
        agent.agent_id,
        agent.window_days,
        agent.value,
        agent.leads.len(),
        instant(agent.at),
        agent.stored,
        agent.means,
        table(&rows)
    );
    if agent.leads.len() > SHOWN {
        let _ = writeln!(text, "… and {} more; --json has all", agent.leads.len() - SHOWN);
    }
    text
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
