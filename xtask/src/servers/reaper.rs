//! No orphan: what this process started ends with it, however it ends.
//!
//! `PR_SET_PDEATHSIG` would need `unsafe` (or a helper on PATH), and it follows the *thread* that
//! started a child, not the process. So there is one helper for each process: a shell of a few lines
//! that is told of every child and kills them when its standard input ends, which happens even after
//! `kill -9` of this process.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result};
use rustix::process::Signal;

/// Each line is `+ SIGNAL GROUP` or `- GROUP`.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
while read -r what a b; do
  case $what in
    +) set -- "$@" "$a:$b" ;;
    -) for it; do shift; [ "${it#*:}" = "$a" ] || set -- "$@" "$it"; done ;;
  esac
done
for it; do kill -s "${it%%:*}" -- "-${it#*:}" 2>/dev/null; done
"#;

static REAPER: Mutex<Option<Child>> = Mutex::new(None);

/// From now on this process group ends with this process, by this signal.
pub(super) fn watch(group: u32, signal: Signal) -> Result<()> {
    tell(&format!("+ {} {group}\n", signal.as_raw()))
}

/// This process group has ended: its number may be given to somebody else.
pub(super) fn forget(group: u32) {
    tell(&format!("- {group}\n")).ok();
}

fn tell(line: &str) -> Result<()> {
    let mut reaper = REAPER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if reaper.is_none() {
        *reaper = Some(start()?);
    }
    let input = reaper.as_mut().and_then(|reaper| reaper.stdin.as_mut());
    let input = input.context("the helper that ends our children has no input")?;
    input.write_all(line.as_bytes()).context("the helper that ends our children is gone")
}

fn start() -> Result<Child> {
    Command::new("sh")
        .args(["-c", SCRIPT, "leadpulse-reaper"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        .process_group(0)
        .spawn()
        .context("can't start `sh`")
}

/// At the end of a command: the helper ends what is left, and itself.
pub(super) fn finish() {
    let reaper = REAPER.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    if let Some(mut reaper) = reaper {
        // Waiting closes its input.
        reaper.wait().ok();
    }
}
