//! Dead letters.

use std::fmt::Write as _;

use super::{instant, row};
use crate::{
    cli::terminal::table,
    ops::dead_letters::{Count, Group, Retried, Shown, Skipped},
};

pub(in crate::cli) fn letters(groups: &[Group]) -> String {
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
            &format!("{}{}", earlier(group.earlier_stream), group.error),
        ]));
    }
    table(&rows)
}

/// What came with a stream that is gone.
fn earlier(is: bool) -> &'static str {
    if is { "(of an earlier stream) " } else { "" }
}

pub(in crate::cli) fn letter(letter: &Shown) -> String {
    let id = |id: Option<i64>| id.map_or_else(|| "?".to_owned(), |id| id.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    let state = match &letter.resolution {
        Some(resolution) => resolution.clone(),
        None if letter.retry_requested_at.is_some() => "a retry is asked for".to_owned(),
        None => "waiting".to_owned(),
    };
    let rows = [
        ("seq", format!("{}{}", earlier(letter.earlier_stream), letter.seq)),
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

pub(in crate::cli) fn count(count: &Count) -> String {
    format!("{} letters of {} leads", count.letters, count.leads)
}

pub(in crate::cli) fn retried(retried: &Retried) -> String {
    let Retried { requested, applied, refused, published, refusals } = retried;
    let mut text = format!("{requested} letters: {applied} applied, {refused} refused again\n");
    if *published > 0 {
        let _ = writeln!(text, "{published} letters of an earlier stream are in the stream again");
    }
    for refusal in refusals {
        let _ = writeln!(text, "! {}: {}", refusal.seq, refusal.error);
    }
    text
}

pub(in crate::cli) fn skipped(skipped: &Skipped) -> String {
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
