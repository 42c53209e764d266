//! How the projection is.

use std::fmt::Write as _;

use super::{instant, row};
use crate::{
    cli::terminal::table,
    ops::status::{Monitor, ProjectionStatus, Status, StreamStatus},
};

pub(in crate::cli) fn status(status: &Status) -> String {
    let mut rows = Vec::new();
    if let Some(stream) = &status.stream {
        rows.extend(stream_rows(stream));
    }
    rows.push(row(["nats", &monitor(status.monitor.as_ref())]));
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
        text.push_str(match &status.monitor {
            Some(_) => "all is well\n",
            None => "all is well, as far as can be told without `nats.monitor`\n",
        });
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
    let abandoned = stream.consumers.iter().filter(|consumer| consumer.abandoned).count();
    for consumer in stream.consumers.iter().filter(|consumer| !consumer.abandoned) {
        let text = format!(
            "{} ({}) delivered {}, pending {}",
            consumer.name,
            consumer.description.as_deref().unwrap_or("no description"),
            consumer.delivered_seq,
            consumer.pending
        );
        rows.push(row(["consumer", &text]));
    }
    if abandoned > 0 {
        let text = format!("{abandoned} that nobody reads any more; NATS removes them by itself");
        rows.push(row(["consumer", &text]));
    }
    rows
}

fn monitor(monitor: Option<&Monitor>) -> String {
    match monitor {
        None => "not asked how it is (`nats.monitor` is not set): a full disk does not show here"
            .to_owned(),
        Some(Monitor { said: None, .. }) => "well, says its monitoring page".to_owned(),
        Some(Monitor { said: Some(said), .. }) => said.clone(),
    }
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
    if let Some(fault) = &projection.fault {
        let text = format!("stands still since {}: {}", instant(fault.since), fault.what);
        rows.push(row(["fault", &text]));
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
