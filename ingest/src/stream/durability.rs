//! What the record is promised to be, against what the server says that it has. An old server drops
//! settings that it does not know without a word, so every setting is read back.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, StorageType};
use leadpulse_service::config::Promise;
use serde_json::{Map, Value, json};

/// The first version that has everything that the definitions ask for.
const OLDEST: (u64, u64) = (2, 10);
/// monday.com retries for 30 minutes.
const SHORTEST_MEMORY: Duration = Duration::from_secs(35 * 60);

/// What a server tells of itself and of the stream of record.
#[derive(Debug)]
pub(crate) struct Seen<'s> {
    pub(crate) version: &'s str,
    /// Bytes of a message that the server takes, headers included.
    pub(crate) max_payload: usize,
    pub(crate) asked: &'s Config,
    pub(crate) got: &'s Config,
    pub(crate) sync: Option<DiskSync>,
}

/// How often the server writes through to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskSync {
    /// Before each acknowledgement.
    Always,
    Every(Duration),
}

/// One promise, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) promise: Promise,
    /// What is wrong; nothing if it holds.
    pub(crate) fault: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise.name(), self.fault.as_deref().unwrap_or("kept"))
    }
}

pub(crate) fn findings(seen: &Seen<'_>) -> Vec<Finding> {
    Promise::ALL
        .into_iter()
        .map(|promise| Finding { promise, fault: fault(promise, seen) })
        .collect()
}

fn fault(promise: Promise, seen: &Seen<'_>) -> Option<String> {
    let got = seen.got;
    match promise {
        Promise::Version => match version(seen.version) {
            Some(version) => (version < OLDEST)
                .then(|| format!("nats-server {} is older than 2.10", seen.version)),
            None => Some(format!("`{}` is no version of a nats-server", seen.version)),
        },
        Promise::Settings => {
            let drift = drift(seen.asked, got);
            (!drift.is_empty()).then(|| drift.join("; "))
        }
        Promise::Duplicates => (got.duplicate_window < SHORTEST_MEMORY).then(|| {
            let minutes = got.duplicate_window.as_secs() / 60;
            format!("an event is known again for {minutes} minutes only, monday.com retries for 30")
        }),
        Promise::Discard => {
            let bounded = got.max_bytes > 0 || got.max_messages > 0;
            let forgets = got.max_age > Duration::ZERO
                || (bounded && got.discard != DiscardPolicy::New)
                || got.max_messages_per_subject > 0;
            forgets.then(|| "the stream of record forgets old events".to_owned())
        }
        Promise::Replicas => (got.num_replicas != seen.asked.num_replicas
            || got.storage != StorageType::File)
            .then(|| {
                let (has, asked) = (got.num_replicas, seen.asked.num_replicas);
                format!("{has} of {asked} copies, on {:?} storage", got.storage)
            }),
        Promise::Persist => (persistence(got) == PersistenceMode::Async).then(|| {
            "acknowledgements do not wait until the server has written (`persist_mode` is `async`); \
             a killed server loses events that were acknowledged"
                .to_owned()
        }),
        Promise::Payload => {
            let needed = usize::try_from(seen.asked.max_message_size).unwrap_or_default();
            let taken = seen.max_payload;
            (taken < needed).then(|| {
                format!(
                    "the server takes messages of {taken} bytes and no more, the largest webhook \
                     may need {needed}: set its `max_payload` to `2MB`"
                )
            })
        }
        Promise::Fsync => match seen.sync {
            Some(DiskSync::Always) => None,
            Some(DiskSync::Every(interval)) => Some(format!(
                "the disk is synced every {} s; a power cut loses up to that much of one copy",
                interval.as_secs()
            )),
            None => Some("unknown how often the disk is synced; set `nats.monitor`".to_owned()),
        },
    }
}

/// One line for the log: what an acknowledgement is worth here.
pub(crate) fn line(seen: &Seen<'_>) -> String {
    let sync = match seen.sync {
        Some(DiskSync::Always) => "synced before each acknowledgement".to_owned(),
        Some(DiskSync::Every(interval)) => format!("synced every {} s", interval.as_secs()),
        None => "synced nobody knows how often (`nats.monitor` is not set)".to_owned(),
    };
    let copies = seen.got.num_replicas;
    format!(
        "nats-server {}, {copies} {} on {:?} storage, {sync}, duplicates known for {} min, \
         messages of up to {} KiB",
        seen.version,
        if copies == 1 { "copy" } else { "copies" },
        seen.got.storage,
        seen.got.duplicate_window.as_secs() / 60,
        seen.max_payload / 1024,
    )
}

/// The same for `/health/detailed`.
pub(crate) fn fact(summary: &str, findings: &[Finding]) -> Value {
    let faults: Map<String, Value> = findings
        .iter()
        .filter_map(|finding| Some((finding.promise.name().into(), finding.fault.clone()?.into())))
        .collect();
    json!({ "summary": summary, "broken_promises": faults })
}

/// What is not as it was asked for, setting by setting: also what nobody asked for.
pub(crate) fn drift(asked: &Config, got: &Config) -> Vec<String> {
    let (asked, got) = (settings(asked), settings(got));
    let names: BTreeSet<&String> = asked.keys().chain(got.keys()).collect();
    let of =
        |settings: &Map<String, Value>, name| settings.get(name).cloned().unwrap_or(Value::Null);
    names
        .into_iter()
        .map(|name| (name, of(&asked, name), of(&got, name)))
        .filter(|(_, wanted, found)| found != wanted && !(is_default(found) && wanted.is_null()))
        .map(|(name, wanted, found)| match wanted {
            Value::Null => format!("`{name}` is {found}, which nobody asked for"),
            wanted => format!("`{name}` is {found} instead of {wanted}"),
        })
        .collect()
}

/// A server tells some settings that it was not asked for as they are by themselves.
fn is_default(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_i64().is_some_and(|number| number <= 0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(is_default),
        Value::Null => true,
    }
}

fn settings(config: &Config) -> Map<String, Value> {
    // A server says nothing of the usual mode, and nobody asks for it by name.
    // What it notes down of itself is no setting.
    let persist_mode = Some(persistence(config));
    let config = Config { persist_mode, metadata: HashMap::new(), ..config.clone() };
    match serde_json::to_value(config) {
        Ok(Value::Object(settings)) => settings.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        _ => Map::new(),
    }
}

fn persistence(config: &Config) -> PersistenceMode {
    config.persist_mode.unwrap_or_default()
}

fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.trim_start_matches('v').split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests;
