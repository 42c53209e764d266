//! The folder `.local`: everything that runs or is kept on this machine, and nothing that is committed.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

#[derive(Debug, Clone)]
pub struct Local(PathBuf);

impl Local {
    /// `.local` in the workspace, or `LEADPULSE_LOCAL`: a second `up` beside the first needs its own.
    pub fn open() -> Result<Self> {
        let folder = std::env::var_os("LEADPULSE_LOCAL").map(PathBuf::from);
        let local = Self(folder.unwrap_or_else(|| crate::root().join(".local")));
        for folder in [local.data(), local.logs()] {
            fs::create_dir_all(&folder).with_context(|| {
                format!("can't make {}: run from a folder that you may write to", folder.display())
            })?;
        }
        Ok(local)
    }

    /// What the servers keep. `--fresh` removes it.
    pub fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    pub fn logs(&self) -> PathBuf {
        self.0.join("log")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// What other tools read while `up` runs.
    pub fn run_file(&self) -> PathBuf {
        self.0.join("run.json")
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("up.lock")
    }

    fn state_file(&self) -> PathBuf {
        self.data().join("state.json")
    }

    fn ports_file(&self) -> PathBuf {
        self.0.join("ports.json")
    }

    pub fn state(&self) -> State {
        read(&self.state_file()).unwrap_or_default()
    }

    pub fn keep_state(&self, state: &State) -> Result<()> {
        write(&self.state_file(), state)
    }

    /// The port of each server and service at the last run: who has noted a URL finds it again.
    pub fn ports(&self) -> BTreeMap<String, u16> {
        read(&self.ports_file()).unwrap_or_default()
    }

    pub fn keep_ports(&self, ports: &BTreeMap<String, u16>) -> Result<()> {
        write(&self.ports_file(), ports)
    }

    /// As `lock`, but one that has just ended is waited for.
    pub fn lock_soon(&self) -> Result<Result<File, u32>> {
        for _ in 0..20 {
            if let Ok(lock) = self.lock()? {
                return Ok(Ok(lock));
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        self.lock()
    }

    /// The one `up` of this folder; the lock ends with the process. Else the pid of who has it.
    pub fn lock(&self) -> Result<Result<File, u32>> {
        let path = self.lock_file();
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("can't open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.rewind()?;
                write!(file, "{}", std::process::id())?;
                Ok(Ok(file))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                Ok(Err(text.trim().parse().unwrap_or(0)))
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("can't lock {}", path.display()))
            }
        }
    }
}

/// What goes with the data: it is removed with them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The API key of each org.
    pub keys: BTreeMap<String, String>,
    /// Signs the demo's webhooks.
    pub demo_secret: Option<String>,
    pub quarantine_key: Option<String>,
    /// When the demo's history ends (unix seconds): from it and the seed its leads are known again.
    pub demo_until: Option<i64>,
    /// Has the history been played to its end?
    pub demo_played: bool,
    /// Postgres' major version: another one can't read the data.
    pub postgres_major: Option<u32>,
}

pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Whole or not at all, and for nobody else's eyes: keys and passwords are in it.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let part = path.with_extension("part");
    let context = || format!("can't write {}", path.display());
    fs::remove_file(&part).ok();
    let mut file = File::options()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&part)
        .with_context(context)?;
    file.write_all(&serde_json::to_vec_pretty(value)?).with_context(context)?;
    file.write_all(b"\n").with_context(context)?;
    fs::rename(&part, path).with_context(context)
}
