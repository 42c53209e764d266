//! The tests' output: shown as it comes, and counted.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::Command,
};

use anyhow::{Result, bail};

use crate::{
    say,
    servers::{Ending, Process},
};

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) run: u64,
    pub(super) left_out: u64,
}

impl Counts {
    pub(super) fn add(&mut self, other: Self) {
        self.run += other.run;
        self.left_out += other.left_out;
    }

    /// Of a line that sums up: nextest's, or one of cargo's for each program.
    fn of_line(line: &str) -> Option<Self> {
        let line = without_colour(line);
        let line = line.trim();
        if !line.starts_with("Summary [") && !line.starts_with("test result:") {
            return None;
        }
        let words: Vec<&str> =
            line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
        let before = |what: &str| {
            let pair = words.windows(2).find(|pair| pair[1] == what);
            pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
        };
        Some(Self { run: before("passed"), left_out: before("skipped") + before("ignored") })
    }
}

/// Runs tests to their end; an error if one fails.
pub(super) fn run(name: &str, mut command: Command) -> Result<Counts> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    if say::coloured() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut process = Process::start_as_is(name, command, Ending::default())?;
    let mut counts = Counts::default();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        io::stdout().lock().write_all(&line).ok();
        if let Some(more) = Counts::of_line(&String::from_utf8_lossy(&line)) {
            counts.add(more);
        }
        line.clear();
    }
    if process.wait() { Ok(counts) } else { bail!("step `{name}` failed; see above") }
}

fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut inside = false;
    for c in line.chars() {
        match (inside, c) {
            (false, '\x1b') => inside = true,
            (true, 'm') => inside = false,
            (false, c) => plain.push(c),
            (true, _) => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_sums_are_understood() {
        let of = |line: &str| Counts::of_line(line).map(|counts| (counts.run, counts.left_out));
        let nextest = "\x1b[32;1m     Summary\x1b[0m [   1.006s] \x1b[1m17\x1b[0m tests run: \x1b[1m17\x1b[0m passed, \x1b[1m2\x1b[0m skipped";
        assert_eq!(of(nextest), Some((17, 2)));
        let cargo = "test result: ok. 7 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.78s";
        assert_eq!(of(cargo), Some((7, 1)));
        assert_eq!(of("test result is fine: 3 passed"), None);
    }
}
