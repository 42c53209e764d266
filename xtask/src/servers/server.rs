//! A running server.

use std::{
    fmt, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{
    Kind,
    process::{Ending, Process},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A private instance on 127.0.0.1. It ends with its handle.
pub struct Server {
    url: String,
    process: Process,
    launch: Launch,
}

/// How to start it, again and again, on the same port and data.
pub(super) struct Launch {
    pub(super) kind: Kind,
    pub(super) port: u16,
    pub(super) log: PathBuf,
    pub(super) ending: Ending,
    pub(super) command: Box<dyn Fn() -> Result<Command> + Send + Sync>,
    /// Does what answers on this port do its work already?
    pub(super) ready: fn(&mut TcpStream) -> Option<bool>,
    /// A folder that goes away with the handle.
    pub(super) litter: Option<PathBuf>,
}

impl Server {
    pub(super) fn start(launch: Launch, url: String) -> Result<Self> {
        let process = launch.start()?;
        Ok(Self { url, process, launch })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn port(&self) -> u16 {
        self.launch.port
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Where its log is.
    pub fn log(&self) -> &Path {
        &self.launch.log
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Ends it as its manual says, within 8 s.
    pub fn stop(&mut self) {
        self.process.stop(Duration::from_secs(8));
    }

    /// `kill -9`.
    pub fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Starts it again on the same port and data; stops it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.stop();
        self.process = self.launch.start()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.end_at_once();
        if let Some(litter) = &self.launch.litter {
            fs::remove_dir_all(litter).ok();
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL holds a password.
        write!(f, "{} on port {}, pid {}", self.launch.kind.name(), self.launch.port, self.pid())
    }
}

impl Launch {
    fn start(&self) -> Result<Process> {
        let name = self.kind.name();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut process = Process::start(name, (self.command)()?, &self.log, self.ending)?;
            let address = SocketAddr::from(([127, 0, 0, 1], self.port));
            let ready = || answers(address, self.ready);
            let Err(error) = process.wait_ready(PATIENCE, ready) else { return Ok(process) };
            // The one before was killed a moment ago and the kernel still clears its port or memory.
            let in_use = process.last_lines(15).contains("in use");
            if !in_use || Instant::now() > deadline {
                return Err(error).with_context(|| format!("{name} did not start"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn answers(address: SocketAddr, ready: fn(&mut TcpStream) -> Option<bool>) -> bool {
    let timeout = Duration::from_secs(1);
    TcpStream::connect_timeout(&address, timeout).is_ok_and(|mut stream| {
        stream.set_read_timeout(Some(timeout)).is_ok()
            && stream.set_write_timeout(Some(timeout)).is_ok()
            && ready(&mut stream) == Some(true)
    })
}

/// Sends `question`, and gives the first up to 512 bytes of the answer.
pub(super) fn ask(stream: &mut TcpStream, question: &[u8]) -> Option<Vec<u8>> {
    stream.write_all(question).ok()?;
    let mut answer = vec![0; 512];
    let length = stream.read(&mut answer).ok()?;
    answer.truncate(length);
    Some(answer)
}
