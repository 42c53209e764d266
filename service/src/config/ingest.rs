//! The section `[ingest]`: the bounds of the door.

use std::{net::SocketAddr, time::Duration};

use super::{address, bounded, document::Section, listen, secret::SecretRef};

#[derive(Debug, Clone)]
pub struct Ingest {
    /// Default: 127.0.0.1:8080.
    pub listen: SocketAddr,
    /// Another address for `/metrics` and `/health/detailed`, which then are not on the one of the
    /// webhooks; `/health`, `/health/liveness` and `/health/readiness` are on both. Default: none, all are
    /// at `listen`.
    pub admin_listen: Option<SocketAddr>,
    /// Within this time a webhook is answered once its body is there, durable or not. Milliseconds.
    /// Default: 4000.
    pub answer_within: Duration,
    /// Within this time a request's head must be there, and then its body. Milliseconds. Default: 10000.
    pub read_within: Duration,
    /// Publishes in flight at most; beyond them webhooks are shed with 503. Default: 1024.
    pub max_in_flight: usize,
    /// Open connections at most; more wait in the kernel's queue. Default: 10000.
    pub max_connections: usize,
    /// What bodies may take of the memory, all together, from their first byte to their answer; beyond it
    /// webhooks are shed with 503. Mebibytes. Default: 256.
    pub body_memory: usize,
    /// Refused webhooks of one source that are kept in the quarantine, a second, with bursts of twice as
    /// much; of what is beyond it only the number is kept. Kibibytes. Default: 512, with which the flood of
    /// one source takes half an hour to push everything else out of the quarantine's GiB.
    pub quarantine_bytes_per_second: u32,
    /// `env:NAME` or `file:PATH`: seals the signatures of refused webhooks in the quarantine, so that they
    /// can be verified again. Without it a quarantined JWT is not kept. Default: none.
    pub quarantine_key: Option<SecretRef>,
}

pub(super) fn read_ingest(section: Section<'_, '_>) -> Ingest {
    let listen = listen(&section, 8080);
    let admin_listen = address(&section, "admin_listen");
    if let Some(admin) = admin_listen
        && admin == listen
        && admin.port() != 0
    {
        section.report("`ingest.admin_listen` is `ingest.listen`: leave it out to have both there");
    }
    let millis =
        |key, default, bounds| Duration::from_millis(section.number(key, None, default, bounds));
    let answer_within = millis("answer_within_ms", 4000, 100..=4900);
    let read_within = millis("read_within_ms", 10_000, 100..=60_000);
    let count = |key, default, most| {
        usize::try_from(section.number(key, None, default, 1..=most)).unwrap_or(usize::MAX)
    };
    let max_in_flight = count("max_in_flight", 1024, 65_536);
    let max_connections = count("max_connections", 10_000, 1_000_000);
    let body_memory = count("body_memory_mib", 256, 1_048_576).saturating_mul(1024 * 1024);
    let quarantine_kib = section.number("quarantine_kib_per_second", None, 512, 1..=1_048_576);
    let quarantine_key = section
        .get_or_env::<String>("quarantine_key", None)
        .and_then(|found| section.parsed("quarantine_key", found, SecretRef::parse));
    section.finish();
    Ingest {
        listen,
        admin_listen,
        answer_within,
        read_within,
        max_in_flight,
        max_connections,
        body_memory,
        quarantine_bytes_per_second: bounded(quarantine_kib * 1024),
        quarantine_key,
    }
}
