//! `--detach`: the same `up`, started once more in the background.

use std::{
    env,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::{already_running, signals::Signals};
use crate::{local::Local, say};

const MARK: &str = "LEADPULSE_UP_IN_BACKGROUND";

pub(super) fn in_background() -> bool {
    env::var_os(MARK).is_some()
}

/// A session of its own: closing the terminal does not end it.
pub(super) fn leave_terminal() {
    if in_background() {
        rustix::process::setsid().ok();
    }
}

/// Starts the one in the background, shows what it says until it is ready, and leaves it alone.
pub(super) fn main(local: &Local) -> Result<ExitCode> {
    match local.lock_soon()? {
        Ok(lock) => drop(lock),
        Err(pid) => bail!("{}", already_running(pid)),
    }
    fs::remove_file(local.run_file()).ok();
    let path = local.log("up");
    let log = File::create(&path).with_context(|| format!("can't write {}", path.display()))?;
    let mut child = Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(MARK, "1")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("can't start in the background")?;
    let pid = child.id();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let mut shown = 0;
        loop {
            let ready = is_ready(local, pid);
            shown = show(&path, shown)?;
            if let Some(status) = child.try_wait()? {
                show(&path, shown)?;
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return Ok(code.map_or(ExitCode::FAILURE, ExitCode::from));
            }
            if ready {
                say::line("runs in the background; `cargo xtask down` stops it");
                return Ok(ExitCode::SUCCESS);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
                () = signals.next() => if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                    kill_process(pid, Signal::TERM).ok();
                }
            }
        }
    })
}

/// The file is written after the last line that is worth showing.
fn is_ready(local: &Local, pid: u32) -> bool {
    let run: Option<serde_json::Value> = crate::local::read(&local.run_file());
    let supervisor = run.as_ref().and_then(|run| run.get("pids")?.get("supervisor")?.as_u64());
    supervisor == Some(u64::from(pid))
}

fn show(path: &Path, from: u64) -> Result<u64> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut news = Vec::new();
    let length = file.read_to_end(&mut news)?;
    std::io::stdout().write_all(&news).ok();
    Ok(from + u64::try_from(length)?)
}
