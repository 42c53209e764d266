//! Sources and secrets anew while ingest runs: on SIGHUP, and when the file or a secret's file changes.
//! Connections and requests in flight notice nothing; a file that can't be used changes nothing.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use leadpulse_service::config::{Config, SecretRef, process_environment};
use metrics::counter;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};
use tracing::{error, info};

use super::Sources;

const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What tells one state of a file from another: a mounted secret changes under the same name.
type Fingerprint = Vec<Option<(SystemTime, u64)>>;

/// Watches for ever; what it reads goes to `sources`.
pub async fn keep_fresh(path: PathBuf, config: Config, sources: watch::Sender<Arc<Sources>>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else {
        error!("SIGHUP can't be watched; sources are as they were at the start");
        return;
    };
    let mut files = files_of(&path, &config);
    let mut seen = fingerprint(&files).await;
    loop {
        let cause = tokio::select! {
            _ = hangup.recv() => "SIGHUP",
            () = sleep(LOOK_EVERY) => {
                let now = fingerprint(&files).await;
                if now == seen {
                    continue;
                }
                seen = now;
                "a changed file"
            }
        };
        match read(&path).await {
            Ok((config, fresh)) => {
                info!(cause, sources = fresh.len(), "sources and secrets were read again");
                files = files_of(&path, &config);
                seen = fingerprint(&files).await;
                sources.send_replace(Arc::new(fresh));
                counter!("ingest_reloads_total", "outcome" => "done").increment(1);
            }
            Err(problems) => {
                error!(cause, "the old sources and secrets stay: {problems}");
                counter!("ingest_reloads_total", "outcome" => "refused").increment(1);
            }
        }
    }
}

/// Files are read where blocking is allowed.
async fn read(path: &Path) -> Result<(Config, Sources), String> {
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let config = Config::load(&path)?;
        let sources = Sources::resolve(&config, &process_environment)?;
        Ok((config, sources))
    });
    match reading.await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(unusable)) => {
            let unusable: leadpulse_service::config::Unusable = unusable;
            Err(unusable.to_string())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// The configuration and every file that holds a secret of a source.
fn files_of(path: &Path, config: &Config) -> Vec<PathBuf> {
    let sources = config.orgs.iter().flat_map(|org| &org.sources);
    let secrets = sources.flat_map(|source| source.verify.secrets());
    let files = secrets.filter_map(|named| match &named.secret {
        SecretRef::File(file) => Some(file.clone()),
        SecretRef::Env(_) => None,
    });
    std::iter::once(path.to_owned()).chain(files).collect()
}

async fn fingerprint(files: &[PathBuf]) -> Fingerprint {
    let mut fingerprint = Vec::with_capacity(files.len());
    for file in files {
        let state = tokio::fs::metadata(file).await.ok();
        fingerprint.push(state.and_then(|state| Some((state.modified().ok()?, state.len()))));
    }
    fingerprint
}
