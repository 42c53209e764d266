//! What every command says in the same way: data on stdout, everything else on stderr; JSON for scripts;
//! a plan and a question for people; progress with rate and time left.

use std::{
    io::{BufRead as _, IsTerminal as _, Write as _},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leadpulse_service::cli::plain;
use serde::Serialize;

use crate::ops::Usage;

/// Between two plain lines of progress.
const LINE: Duration = Duration::from_secs(2);

/// How an operator wants it.
#[derive(Debug, Clone, Copy)]
pub struct Terminal {
    pub json: bool,
    pub yes: bool,
}

impl Terminal {
    /// The data of a command: as JSON, or as text for people.
    pub fn show<T: Serialize>(&self, report: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        let text = if self.json { serde_json::to_string(report)? } else { text(report) };
        Ok(writeln!(std::io::stdout().lock(), "{}", plain(text.trim_end()))?)
    }

    /// Shows what will be done and asks. Where nobody can answer, only `--yes` does.
    pub fn confirm(&self, plan: &str) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        eprintln!("{}", plain(plan.trim_end()));
        if !std::io::stdin().is_terminal() {
            bail!(Usage("nobody is there to ask: --yes does it without asking".to_owned()));
        }
        eprint!("Do it? [y/N] ");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing was changed");
        }
        Ok(())
    }

    /// A bar on a terminal, a line now and then elsewhere, nothing beside JSON.
    pub fn progress(&self, what: &'static str, unit: &'static str) -> Progress {
        if self.json {
            return Progress { what, unit, bar: None, said: None };
        }
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let form = format!(
                "{{msg}} {{wide_bar}} {{human_pos}} of {{human_len}} {unit}, {{per_sec}}, {{eta}} left"
            );
            if let Ok(style) = ProgressStyle::with_template(&form) {
                bar.set_style(style);
            }
            bar.set_message(what);
            return Progress { what, unit, bar: Some(bar), said: None };
        }
        let said = Said { began: None, last_line: Instant::now(), last_done: 0 };
        Progress { what, unit, bar: None, said: Some(Mutex::new(said)) }
    }
}

/// How far long work is.
pub struct Progress {
    what: &'static str,
    unit: &'static str,
    bar: Option<ProgressBar>,
    said: Option<Mutex<Said>>,
}

/// What plain lines are reckoned from.
struct Said {
    /// When it began, and how much was done then: what is gone on with does not begin at nothing.
    began: Option<(Instant, u64)>,
    last_line: Instant,
    last_done: u64,
}

impl Progress {
    #[expect(clippy::cast_precision_loss, reason = "a rate is rough")]
    pub fn at(&self, done: u64, total: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
        }
        let Some(said) = &self.said else { return };
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        // The next pass over the same begins anew.
        if done < said.last_done {
            said.began = None;
        }
        said.last_done = done;
        let (began, from) = *said.began.get_or_insert_with(|| (Instant::now(), done));
        if said.last_line.elapsed() < LINE {
            return;
        }
        said.last_line = Instant::now();
        let rate = done.saturating_sub(from) as f64 / began.elapsed().as_secs_f64().max(0.001);
        let left = total.saturating_sub(done) as f64 / rate.max(0.001);
        let (what, unit) = (self.what, self.unit);
        eprintln!("{what}: {done} of {total} {unit}, {rate:.0} a second, {left:.0} s left");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The user and the machine.
pub fn who() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME").map_err(std::io::Error::other));
    let user = user.unwrap_or_else(|_| "unknown".to_owned());
    let host = host.unwrap_or_else(|_| "unknown".to_owned());
    format!("{user}@{}", host.trim())
}

/// Columns as wide as their widest cell; the first row is the heading. A line break in a cell would break the row.
pub fn table(rows: &[Vec<String>]) -> String {
    let one_line = |cell: &String| plain(cell).replace('\n', " ");
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(one_line).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let room = width.saturating_sub(cell.chars().count()) + 2;
            line.push_str(cell);
            line.push_str(&" ".repeat(room));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_by_characters_and_not_by_bytes() {
        let rows = [["name", "n"], ["דנה", "1"], ["x\ny", "22"]];
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(table(&rows), "name  n\nדנה   1\nx y   22\n");
    }
}
