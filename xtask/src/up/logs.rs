//! The services' logs, as one stream with a name before each line.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use crate::{local::Local, programs::SERVICES, say};

const COLOURS: [&str; 3] = ["\x1b[36m", "\x1b[35m", "\x1b[33m"];

struct Log {
    prefix: String,
    path: PathBuf,
    offset: u64,
    rest: Vec<u8>,
}

/// Shows what the services have written and write; never ends. Where nobody looks, nothing is shown.
pub(super) async fn follow(local: &Local, shown: bool) {
    if !shown {
        return std::future::pending().await;
    }
    let coloured = say::coloured();
    let mut logs: Vec<Log> = SERVICES
        .iter()
        .zip(COLOURS)
        .map(|(name, colour)| {
            let path = local.log(name);
            let prefix = match coloured {
                true => format!("{colour}{name:<9} |\x1b[0m"),
                false => format!("{name:<9} |"),
            };
            Log { prefix, path, offset: 0, rest: Vec::new() }
        })
        .collect();
    loop {
        for log in &mut logs {
            for line in log.news() {
                say::line(&format!("{} {line}", log.prefix));
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

impl Log {
    /// The whole lines that have come since the last time.
    fn news(&mut self) -> Vec<String> {
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.offset))?;
            file.take(1 << 20).read_to_end(&mut self.rest)
        });
        self.offset += read.map_or(0, |length| length as u64);
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let whole: Vec<u8> = self.rest.drain(..=end).collect();
        String::from_utf8_lossy(&whole).lines().map(str::to_owned).collect()
    }
}
