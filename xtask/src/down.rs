//! `cargo xtask down`: ends the `up` of this folder.

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{local::Local, say};

/// `up` takes 10 s at most; after this it hangs.
const PATIENCE: Duration = Duration::from_secs(15);

pub fn main() -> Result<ExitCode> {
    let local = Local::open()?;
    let Err(pid) = local.lock()? else {
        // Of an `up` that was killed.
        fs::remove_file(local.run_file()).ok();
        say::line("nothing runs in this folder");
        return Ok(ExitCode::SUCCESS);
    };
    let process = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let process = process.context("`up` runs but has not told its pid; try again")?;
    say::line(&format!("stopping `cargo xtask up` (pid {pid})"));
    kill_process(process, Signal::TERM).with_context(|| format!("can't stop process {pid}"))?;
    let start = Instant::now();
    while local.lock()?.is_err() {
        if start.elapsed() > PATIENCE {
            say::line("it does not end: killed, and its servers with it");
            kill_process(process, Signal::KILL).ok();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    say::line(&format!("stopped after {:.1} s; the data are kept", start.elapsed().as_secs_f64()));
    Ok(ExitCode::SUCCESS)
}
