//! A plain word on what is wrong, and what to type.

use chrono::SecondsFormat;
use serde::Serialize;

use super::{
    Lag, Limit, Monitor, ProjectionStatus, StreamStatus,
    look::{FULL, Look, Unasked, Unwritable},
};
use crate::{ops::Tools, reader::ReadError};

/// Marks that wait longer than this are not being worked on. Seconds.
const OLD_MARK: f64 = 10.0;
/// Room for less than this is none: the largest message. Bytes.
const LARGEST: u64 = 2 << 20;
const NOBODY: &str = "start `projector`; if it runs, its log says what keeps it from it";
/// A lag of fewer events is the life of a batch, …
const BEHIND: u64 = 1000;
/// … if the first of them has not waited for longer than this. Seconds.
const LATE: f64 = 10.0;
/// A projector that stands still tries again sooner than this. Seconds.
const NEXT_TRY: f64 = 20.0;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub what: String,
    /// What an operator types or does.
    pub cure: String,
}

fn finding(what: impl Into<String>, cure: impl Into<String>) -> Finding {
    Finding { what: what.into(), cure: cure.into() }
}

/// Worst first.
pub(super) fn of(look: &Look, tools: &Tools) -> Vec<Finding> {
    // A server that does not answer at all is one thing that is wrong, not two.
    let away = matches!(look.stream, Err(ReadError::Nats(_)));
    let told = look.monitor.as_ref().filter(|monitor| !away || monitor.well.is_some());
    let mut findings: Vec<_> = told.and_then(complaint).into_iter().collect();
    match &look.stream {
        Err(ReadError::NoStream) => findings
            .push(finding("the stream of events is not there", "start `ingest`, which creates it")),
        Err(error) => findings.push(finding(
            format!("the stream can't be read: {error}"),
            "start nats-server, or correct NATS_URL",
        )),
        Ok(stream) => findings.extend(stream.limits.iter().filter_map(fullness)),
    }
    let tables = match &look.tables {
        Ok(tables) => tables,
        Err(unasked) => {
            let Unasked { said, cure } = unasked;
            findings.push(finding(format!("Postgres can't be asked: {said}"), *cure));
            return findings;
        }
    };
    let position = look.stream.as_ref().ok().and_then(|stream| position(stream, tables));
    // What the stream and the position tell needs no second word.
    findings.extend(position.or_else(|| fault(tables)));
    // Without writes nobody keeps the lease: to start a projector would be the wrong cure.
    match &look.unwritable {
        Some(why) => findings.push(unwritable(why)),
        None => findings.extend(owner(tables)),
    }
    // Whatever else is wrong is the cause of it.
    if findings.is_empty() {
        findings.extend(look.lag().and_then(late));
    }
    findings.extend(backlog(tables, tools));
    findings
}

fn complaint(monitor: &Monitor) -> Option<Finding> {
    let said = monitor.said.as_ref()?;
    Some(match monitor.well {
        None => finding(
            format!("nats-server can't be asked how it is: {said}"),
            "correct `nats.monitor`, or open nats-server's monitoring port",
        ),
        Some(_) if said.contains("write error") => finding(
            format!("nats-server can't write, webhooks are answered 503: {said}"),
            "free space on its disk and restart nats-server",
        ),
        Some(_) => finding(format!("nats-server says: {said}"), "look at nats-server's log"),
    })
}

fn fullness(limit: &Limit) -> Option<Finding> {
    let Limit { what, used, most } = limit;
    let room = most.saturating_sub(*used);
    let none = room < if what.starts_with("bytes") { LARGEST } else { 1 };
    let cure = "raise the limit: webhooks are refused with 503 while there is no room";
    if none {
        return Some(finding(format!("the stream is full: {used} of {most} {what}"), cure));
    }
    (room < most / 10)
        .then(|| finding(format!("the stream is nearly full: {used} of {most} {what}"), cure))
}

fn unwritable(why: &Unwritable) -> Finding {
    match why {
        Unwritable::ReadOnly => finding(
            "Postgres takes no writes: it is a standby, or was made read-only",
            "let DATABASE_URL name the primary, or find out who made it read-only, and why",
        ),
        Unwritable::Fails(said) => finding(format!("Postgres can't write: {said}"), FULL),
    }
}

fn position(stream: &StreamStatus, tables: &ProjectionStatus) -> Option<Finding> {
    let first = tables.lanes.first()?;
    let applied = u64::try_from(tables.applied_seq).unwrap_or(0);
    if first.stream_created_at != stream.created_at {
        return Some(finding(
            format!(
                "the stream was recreated at {}; the read models are from another",
                stream.created_at
            ),
            "restore the stream, or projector rebuild plan, or projector checkpoint set --adopt-stream",
        ));
    }
    if applied > stream.last_seq {
        return Some(finding(
            format!(
                "the stream ends at {} but the read models are from {applied}",
                stream.last_seq
            ),
            "restore the stream from a later copy, or projector import",
        ));
    }
    (stream.first_seq > applied + 1).then(|| {
        finding(
            format!(
                "the events {} to {} are gone from the stream",
                applied + 1,
                stream.first_seq - 1
            ),
            "restore the stream, or projector import",
        )
    })
}

fn fault(tables: &ProjectionStatus) -> Option<Finding> {
    let fault = tables.fault.as_ref()?;
    Some(finding(
        format!(
            "the projection stands still since {}: {}",
            fault.since.to_rfc3339_opts(SecondsFormat::Secs, true),
            fault.what
        ),
        "mend the cause, and it goes on by itself   (projector dead-letters list: what was refused before)",
    ))
}

fn late(lag: Lag) -> Option<Finding> {
    let Lag { events, seconds } = lag;
    let age = seconds.filter(|seconds| *seconds > LATE);
    if events <= BEHIND && age.is_none() {
        return None;
    }
    let since = age.map(|age| format!(", the first of them for {age:.0} s")).unwrap_or_default();
    Some(finding(
        format!("the read models are {events} events behind{since}"),
        "projector status --watch   (is it catching up? if not, the projector's log says why)",
    ))
}

fn owner(tables: &ProjectionStatus) -> Option<Finding> {
    if let Some(pause) = &tables.paused {
        return Some(finding(
            format!("the projection is paused by {} ({})", pause.paused_by, pause.reason),
            "projector resume",
        ));
    }
    match &tables.owner {
        Some(owner) if owner.alive => None,
        Some(owner) if tables.fault.is_some() && owner.silent_seconds < NEXT_TRY => None,
        Some(owner) => Some(finding(
            format!("nobody projects: the last lease ended at {}", owner.expires_at),
            NOBODY,
        )),
        None => Some(finding("no projector ever ran here", NOBODY)),
    }
}

fn backlog(tables: &ProjectionStatus, tools: &Tools) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(mapping) = tables.mapping_of_tables.as_ref()
        && *mapping != tables.mapping_of_configuration
    {
        let own = tools.mapping.hash();
        findings.push(finding(
            format!(
                "the read models were made with mapping {mapping}, the configuration has {own}"
            ),
            "projector rebuild plan",
        ));
    }
    if !tables.knows_letters {
        findings.push(finding(
            "the database's locale knows ASCII only: names in other letters are not found",
            "stop projector, drop the database, create it with `locale 'C.UTF-8' template template0`, start projector",
        ));
    }
    if tables.parked_letters > 0 {
        findings.push(finding(
            format!("{} events of {} leads are parked", tables.parked_letters, tables.parked_leads),
            "projector dead-letters list",
        ));
    }
    if tables.oldest_mark_seconds.is_some_and(|age| age > OLD_MARK) {
        findings.push(finding(
            format!("{} agents wait to be recomputed", tables.dirty_agents),
            "look at the projector's log",
        ));
    }
    findings
}
