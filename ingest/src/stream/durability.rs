//! What the record is promised to be, against what the server says that it has. An old server drops
//! settings that it does not know without a word, so every setting is read back.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
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
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) promise: Promise,
    /// What is wrong; nothing if it holds.
    pub(crate) fault: Option<String>,
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
        Promise::Version => (version(seen.version)? < OLDEST)
            .then(|| format!("nats-server {} is older than 2.10", seen.version)),
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
        "nats-server {}, {copies} {} on {:?} storage, {sync}, duplicates known for {} min",
        seen.version,
        if copies == 1 { "copy" } else { "copies" },
        seen.got.storage,
        seen.got.duplicate_window.as_secs() / 60,
    )
}

/// The same for `/health/detailed`.
pub(crate) fn fact(seen: &Seen<'_>, findings: &[Finding]) -> Value {
    let faults: Map<String, Value> = findings
        .iter()
        .filter_map(|finding| Some((finding.promise.name().into(), finding.fault.clone()?.into())))
        .collect();
    json!({ "summary": line(seen), "broken_promises": faults })
}

/// What was asked for and is not so, setting by setting.
pub(crate) fn drift(asked: &Config, got: &Config) -> Vec<String> {
    let (asked, got) = (settings(asked), settings(got));
    asked
        .iter()
        .filter(|(name, wanted)| got.get(*name) != Some(wanted))
        .map(|(name, wanted)| {
            let found = got.get(name).unwrap_or(&Value::Null);
            format!("`{name}` is {found} instead of {wanted}")
        })
        .collect()
}

fn settings(config: &Config) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(settings)) => settings.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        _ => Map::new(),
    }
}

fn version(text: &str) -> Option<(u64, u64)> {
    let mut parts = text.trim_start_matches('v').split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(change: impl Fn(&mut Config), version: &str, sync: Option<DiskSync>) -> Vec<Promise> {
        let asked = leadpulse_nats::streams::events(3).unwrap();
        let mut got = asked.clone();
        change(&mut got);
        let seen = Seen { version, asked: &asked, got: &got, sync };
        findings(&seen).into_iter().filter(|f| f.fault.is_some()).map(|f| f.promise).collect()
    }

    #[test]
    fn what_is_as_asked_breaks_no_promise() {
        assert_eq!(broken(|_| (), "2.14.4", Some(DiskSync::Always)), []);
        assert_eq!(broken(|_| (), "2.10.0-RC.1", None), [Promise::Fsync]);
        let every = Some(DiskSync::Every(Duration::from_secs(120)));
        assert_eq!(broken(|_| (), "2.14.4", every), [Promise::Fsync]);
    }

    #[test]
    fn each_promise_is_broken_by_its_own_setting() {
        let always = Some(DiskSync::Always);
        assert_eq!(broken(|_| (), "2.9.10", always), [Promise::Version]);
        let found = broken(|got| got.duplicate_window = Duration::from_secs(120), "2.14.4", always);
        assert_eq!(found, [Promise::Settings, Promise::Duplicates]);
        let found = broken(|got| got.max_age = Duration::from_secs(1), "2.14.4", always);
        assert_eq!(found, [Promise::Settings, Promise::Discard]);
        let found = broken(|got| got.num_replicas = 1, "2.14.4", always);
        assert_eq!(found, [Promise::Settings, Promise::Replicas]);
        let found = broken(|got| got.compression = None, "2.14.4", always);
        assert_eq!(found, [Promise::Settings]);
    }

    #[test]
    fn drift_names_the_setting_and_both_values() {
        let asked = leadpulse_nats::streams::events(1).unwrap();
        let got = Config { max_messages: 10, ..asked.clone() };
        assert_eq!(drift(&asked, &got), ["`max_msgs` is 10 instead of -1"]);
    }
}
