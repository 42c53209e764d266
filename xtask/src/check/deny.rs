//! `cargo deny`, where it is installed.

use anyhow::{Result, bail};

use crate::{
    programs,
    say::{self, Progress},
};

pub(super) fn check(progress: Progress) -> Result<()> {
    let version = programs::cargo().args(["deny", "--version"]).output()?;
    if !version.status.success() {
        progress.say(
            "deny: left out, cargo-deny is not installed (`cargo install --locked cargo-deny`)",
        );
        return Ok(());
    }
    super::step(
        progress,
        "deny (bans, licences, sources)",
        programs::cargo().args([
            "deny",
            "--log-level",
            "error",
            "check",
            "bans",
            "licenses",
            "sources",
        ]),
    )?;
    progress.say("deny (advisories)");
    let output =
        programs::cargo().args(["deny", "--log-level", "error", "check", "advisories"]).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if is_out_of_reach(&said) {
        progress.say("deny (advisories): left out, the advisory database is out of reach");
        return Ok(());
    }
    say::line(&said);
    bail!("step `deny (advisories)` failed; see above")
}

/// Not reached is not the same as not clean: only a failed fetch is forgiven.
fn is_out_of_reach(said: &str) -> bool {
    [
        "failed to fetch advisory database",
        "failed to acquire advisory database",
        "failed to clone",
        "unable to fetch",
    ]
    .iter()
    .any(|words| said.contains(words))
}
