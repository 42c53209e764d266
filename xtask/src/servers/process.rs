//! One child process: in a process group of its own, its output in a file, ended with us.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::reaper;

/// How a server is asked to end, and how it is made to when nobody has time for it.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    pub ask: Signal,
    pub at_once: Signal,
}

impl Default for Ending {
    fn default() -> Self {
        Self { ask: Signal::TERM, at_once: Signal::KILL }
    }
}

#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Option<PathBuf>,
    log_start: u64,
    ending: Ending,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; what it writes is appended to `log`.
    pub fn start(name: &str, mut command: Command, log: &Path, ending: Ending) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("can't write {}", log.display()))?;
        let log_start = file.metadata()?.len();
        command.stdout(file.try_clone()?).stderr(file);
        let mut process = Self::start_as_is(name, command, ending)?;
        (process.log, process.log_start) = (Some(log.into()), log_start);
        Ok(process)
    }

    /// Starts `command`, whose output goes where the command says.
    pub fn start_as_is(name: &str, mut command: Command, ending: Ending) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("{program} does not start"))?;
        let mut process =
            Self { name: name.into(), child, log: None, log_start: 0, ending, ended: None };
        if let Err(error) = reaper::watch(process.pid(), ending.at_once) {
            process.kill9();
            return Err(error);
        }
        Ok(process)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output goes, if it goes to a file.
    pub fn log(&self) -> Option<&Path> {
        self.log.as_deref()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            // What it may have left in its group ends with it.
            self.signal_group(Signal::KILL);
            reaper::forget(self.pid());
            self.ended = Some(status);
        }
        self.ended
    }

    pub fn is_running(&mut self) -> bool {
        self.ended().is_none()
    }

    /// Asks it to end.
    pub fn ask_to_end(&mut self) {
        if self.is_running()
            && let Some(pid) = self.raw_pid()
        {
            kill_process(pid, self.ending.ask).ok();
        }
    }

    /// Waits for its end; false if it still runs at the deadline.
    pub fn wait_until(&mut self, deadline: Instant) -> bool {
        while self.is_running() {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        true
    }

    /// Waits for its end; true if it ended well.
    pub fn wait(&mut self) -> bool {
        loop {
            if let Some(status) = self.ended() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to end, and ends it at the deadline. True if it ended when it was asked.
    pub fn stop(&mut self, patience: Duration) -> bool {
        self.ask_to_end();
        let ended = self.wait_until(Instant::now() + patience);
        if !ended {
            self.kill9();
        }
        ended
    }

    /// Ends it without ceremony, but so that it leaves nothing behind.
    pub fn end_at_once(&mut self) {
        if self.is_running() && self.ending.at_once != Signal::KILL {
            self.signal_group(self.ending.at_once);
            self.wait_until(Instant::now() + Duration::from_secs(3));
        }
        self.kill9();
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        if self.is_running() {
            self.signal_group(Signal::KILL);
            self.child.wait().ok();
            self.ended();
        }
    }

    /// Tries `ready` until it is true; an early end or the deadline is an error with the log's last lines.
    pub fn wait_ready(
        &mut self,
        patience: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<()> {
        let deadline = Instant::now() + patience;
        while !ready() {
            if let Some(status) = self.ended() {
                bail!("{} {}\n{}", self.name, how(status), self.last_lines(15));
            }
            if Instant::now() >= deadline {
                let seconds = patience.as_secs();
                bail!("{} is not ready after {seconds} s\n{}", self.name, self.last_lines(15));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The last lines that this run has written.
    pub fn last_lines(&self, count: usize) -> String {
        let log = self.log.as_deref();
        log.and_then(|log| last_lines(log, self.log_start, count).ok()).unwrap_or_default()
    }

    fn raw_pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    fn signal_group(&self, signal: Signal) {
        if let Some(group) = self.raw_pid() {
            kill_process_group(group, signal).ok();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end_at_once();
    }
}

/// "ended with exit code 1", "was killed by signal 9".
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn last_lines(log: &Path, from: u64, count: usize) -> Result<String> {
    const MOST: u64 = 16 * 1024;
    let mut file = fs::File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(length.saturating_sub(MOST))))?;
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.len().saturating_sub(count);
    Ok(lines[first..].iter().map(|line| format!("  {line}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::Scratch;

    fn shell(script: &str, scratch: &Scratch) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start("a shell", command, &scratch.path().join("log"), Ending::default()).unwrap()
    }

    #[test]
    fn an_early_end_is_told_with_the_last_words() {
        let scratch = Scratch::new("process").unwrap();
        let mut process = shell("echo the reason >&2; exit 3", &scratch);
        let error = process.wait_ready(Duration::from_secs(5), || false).unwrap_err().to_string();
        assert!(error.contains("a shell ended with exit code 3"), "{error}");
        assert!(error.contains("the reason"), "{error}");
    }

    #[test]
    fn what_does_not_end_when_asked_is_ended_with_its_own_children() {
        let scratch = Scratch::new("process").unwrap();
        let mut process = shell("trap '' TERM; sleep 1000 & echo $!; wait; wait", &scratch);
        let log = scratch.path().join("log");
        let grandchild = || fs::read_to_string(&log).unwrap().trim().parse::<u32>().ok();
        process.wait_ready(Duration::from_secs(5), || grandchild().is_some()).unwrap();
        assert!(!process.stop(Duration::from_millis(100)));
        let alive = Path::new("/proc").join(grandchild().unwrap().to_string()).join("exe");
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::read_link(&alive).is_ok() {
            assert!(Instant::now() < deadline, "the grandchild lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
