//! Sources and secrets anew while ingest runs: on SIGHUP, and when the file or a secret's file changes.
//! Connections and requests in flight notice nothing; a file that can't be used changes nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use leadpulse_service::config::{Config, SecretRef, Unusable};
use metrics::counter;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::spawn_blocking,
    time::sleep,
};
use tracing::{error, info};

use super::Secrets;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The files that were read, each with what tells one state of it from another: a mounted secret changes
/// under the same name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<PathBuf, Option<(SystemTime, u64)>>);

impl Files {
    fn note(&mut self, file: &Path) {
        let state = fs::metadata(file).ok();
        let state = state.and_then(|state| Some((state.modified().ok()?, state.len())));
        self.0.insert(file.to_owned(), state);
    }

    fn have_changed(&self) -> bool {
        let mut now = Self::default();
        self.0.keys().for_each(|file| now.note(file));
        now != *self
    }
}

/// Reads the configuration and all secrets. Each file's state is noted before the file is read: what
/// changes in between is then a change, and not missed.
pub fn read(path: &Path) -> (Files, Result<(Config, Secrets), Unusable>) {
    let mut files = Files::default();
    files.note(path);
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(unusable) => return (files, Err(unusable)),
    };
    secret_files(&config).for_each(|file| files.note(file));
    let secrets = Secrets::resolve(&config);
    (files, secrets.map(|secrets| (config, secrets)))
}

/// Watches for ever; what it reads goes to `secrets`. `files` are those of the last reading.
pub async fn keep_fresh(path: PathBuf, mut files: Files, secrets: watch::Sender<Arc<Secrets>>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        error!("SIGHUP can't be watched; sources are as they were at the start");
        return;
    };
    loop {
        let cause = tokio::select! {
            _ = hangup.recv() => "SIGHUP",
            () = sleep(LOOK_EVERY) => "a changed file",
        };
        let (path, known) = (path.clone(), files.clone());
        // Files are read where blocking is allowed.
        let look = spawn_blocking(move || {
            (cause == "SIGHUP" || known.have_changed()).then(|| read(&path))
        });
        let Ok(Some((seen, read))) = look.await else { continue };
        files = seen;
        match read {
            Ok((_, fresh)) => {
                let sources = fresh.sources.len();
                info!(cause, sources, "sources and secrets were read again");
                secrets.send_replace(Arc::new(fresh));
                counter!("ingest_reloads_total", "outcome" => "done").increment(1);
            }
            Err(problems) => {
                error!(cause, "the old sources and secrets stay: {problems}");
                counter!("ingest_reloads_total", "outcome" => "refused").increment(1);
            }
        }
    }
}

/// Every file that holds a secret of a source, or the key of the quarantine.
fn secret_files(config: &Config) -> impl Iterator<Item = &Path> {
    let sources = config.orgs.iter().flat_map(|org| &org.sources);
    let secrets = sources.flat_map(|source| source.verify.secrets()).map(|named| &named.secret);
    secrets.chain(&config.ingest.quarantine_key).filter_map(|secret| match secret {
        SecretRef::File(file) => Some(file.as_path()),
        SecretRef::Env(_) => None,
    })
}
