//! The section `[nats]`: where the record is, and what is promised of it.

use secrecy::SecretString;

use super::{bounded, document::Section, url};

#[derive(Debug, Clone)]
pub struct Nats {
    /// Also `NATS_URL`. Several servers are separated by commas. Default: `nats://127.0.0.1:4222`.
    pub url: SecretString,
    /// Replicas of the streams: 1, 3 or 5. Default: 1.
    pub replicas: u32,
    /// The server's monitoring address, `http://HOST:PORT`: the only place that tells how often it syncs
    /// to disk, and that it can't write. Default: none.
    pub monitor: Option<String>,
    /// What must hold before ingest takes a webhook: `version`, `settings`, `duplicates`, `discard`,
    /// `replicas`, `persist`, `payload`, `fsync`. Where one of these fails it refuses to start. Default:
    /// none, it only says so.
    pub require: Vec<Promise>,
}

/// One thing that the record is promised to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// The server knows all settings that are asked of it.
    Version,
    /// The streams are set up as the definitions in `nats/streams` say.
    Settings,
    /// An event is known again for as long as monday.com retries.
    Duplicates,
    /// A full stream refuses what is new; it never forgets what is old.
    Discard,
    /// As many copies as `replicas` says.
    Replicas,
    /// An acknowledgement waits until the server has written the message: `kill -9` takes nothing back.
    Persist,
    /// The server takes a message as large as the largest webhook makes it.
    Payload,
    /// An acknowledgement waits for the disk.
    Fsync,
}

impl Promise {
    pub const ALL: [Self; 8] = [
        Self::Version,
        Self::Settings,
        Self::Duplicates,
        Self::Discard,
        Self::Replicas,
        Self::Persist,
        Self::Payload,
        Self::Fsync,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Settings => "settings",
            Self::Duplicates => "duplicates",
            Self::Discard => "discard",
            Self::Replicas => "replicas",
            Self::Persist => "persist",
            Self::Payload => "payload",
            Self::Fsync => "fsync",
        }
    }
}

pub(super) fn read_nats(section: Section<'_, '_>) -> Nats {
    let url = url(&section, "NATS_URL", &["nats", "tls"], "nats://127.0.0.1:4222");
    let replicas = section.number("replicas", None, 1, 1..=5);
    if replicas.is_multiple_of(2) {
        section.report("`nats.replicas` must be 1, 3 or 5: an even number survives no more failures than the odd one below it");
    }
    let monitor = section.get_or_env::<String>("monitor", None).and_then(|found| {
        section.parsed("monitor", found, |text| {
            let shaped = text.strip_prefix("http://").is_some_and(|rest| rest.contains(':'));
            shaped.then(|| text.trim_end_matches('/').to_owned()).ok_or_else(|| {
                format!("is `{text}`; it must be an address such as http://127.0.0.1:8222")
            })
        })
    });
    let mut require = Vec::new();
    for value in section.array("require") {
        let named = value.get_ref().as_str();
        match Promise::ALL.into_iter().find(|promise| Some(promise.name()) == named) {
            Some(promise) => require.push(promise),
            None => section.report_value(
                value,
                format!("`require` lists {}", Promise::ALL.map(Promise::name).join(", ")),
            ),
        }
    }
    if require.contains(&Promise::Fsync) && monitor.is_none() {
        section.report("`nats.require` has `fsync`, which only `nats.monitor` can tell: set it");
    }
    section.finish();
    Nats { url, replicas: bounded(replicas), monitor, require }
}
