//! The streams as data: the files in `nats/streams` are what the server is asked for.

use async_nats::jetstream::stream::Config;

/// The stream of record.
pub const EVENTS: &str = "LEADPULSE_EVENTS";
/// Refused requests.
pub const QUARANTINE: &str = "LEADPULSE_QUARANTINE";
/// All that the stream of record holds.
pub const EVENTS_SUBJECTS: &str = "leadpulse.events.>";

/// The definition of the stream of record, with the replicas of this installation.
pub fn events(replicas: usize) -> Result<Config, serde_json::Error> {
    read(include_str!("../streams/events.json"), replicas)
}

/// The definition of the quarantine, with the replicas of this installation.
pub fn quarantine(replicas: usize) -> Result<Config, serde_json::Error> {
    read(include_str!("../streams/quarantine.json"), replicas)
}

fn read(text: &str, replicas: usize) -> Result<Config, serde_json::Error> {
    let config: Config = serde_json::from_str(text)?;
    Ok(Config { num_replicas: replicas, ..config })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_nats::jetstream::stream::{DiscardPolicy, StorageType};

    use super::*;

    #[test]
    fn the_record_keeps_everything_and_knows_a_retry_of_half_an_hour() {
        let config = events(3).unwrap();
        assert_eq!((config.name.as_str(), config.num_replicas), (EVENTS, 3));
        assert_eq!(config.subjects, [EVENTS_SUBJECTS]);
        assert_eq!((config.discard, config.storage), (DiscardPolicy::New, StorageType::File));
        assert!(config.duplicate_window >= Duration::from_secs(35 * 60));
        assert_eq!(
            (config.max_age, config.max_messages, config.max_bytes),
            (Duration::ZERO, -1, -1)
        );
    }

    #[test]
    fn the_quarantine_is_bounded_in_size_and_age() {
        let config = quarantine(1).unwrap();
        assert_eq!(config.name, QUARANTINE);
        assert_eq!(config.discard, DiscardPolicy::Old);
        assert!(config.max_bytes > 0 && config.max_age > Duration::ZERO);
    }
}
