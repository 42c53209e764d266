//! Any bytes as the body of a verified webhook: a record or a refusal, never a panic; and a record's
//! envelope can be read again, with the event in it a text that JSON can read.

#![no_main]

use std::sync::{Arc, OnceLock};

use axum::http::HeaderMap;
use chrono::{DateTime, Utc};
use ingest::{
    event::Record,
    source::{Source, Sources},
    verify::{Proof, Unverified},
};
use leadpulse_nats::Envelope;
use leadpulse_service::config::Config;
use libfuzzer_sys::fuzz_target;

const CONFIG: &str = "[[orgs]]\nid='demo'\n[[orgs.sources]]\nkey='crm'\nverify='token'\n\
                      secrets=[{label='x',secret='env:TOKEN'}]";

/// 2026-03-02T10:00:00Z.
const RECEIVED_AT: DateTime<Utc> = match DateTime::from_timestamp(1_772_445_600, 0) {
    Some(at) => at,
    None => DateTime::<Utc>::MIN_UTC,
};

fn source() -> Arc<Source> {
    static SOURCES: OnceLock<Sources> = OnceLock::new();
    let sources = SOURCES.get_or_init(|| {
        let config = Config::parse("leadpulse.toml", CONFIG, &|_| None);
        let config = config.unwrap_or_else(|problems| panic!("{problems}"));
        let sources = Sources::resolve(&config, &|_| Some("token".into()));
        sources.unwrap_or_else(|problems| panic!("{problems}"))
    });
    sources.of("crm").0
}

fuzz_target!(|body: &[u8]| {
    let proof = Proof::new(HeaderMap::new(), Some("token"));
    let received_at = RECEIVED_AT;
    let body = bytes::Bytes::copy_from_slice(body);
    let unverified = Unverified { source: source(), body, received_at, proof: &proof };
    let Ok(verified) = unverified.verify() else { panic!("the token is the right one") };
    let Ok(record) = Record::of(&verified) else { return };
    let envelope = match serde_json::from_slice::<Envelope>(record.payload()) {
        Ok(envelope) => envelope,
        Err(error) => panic!("a record that can't be read again: {error}"),
    };
    assert!(envelope.occurred_at <= leadpulse_nats::instant::latest_believed(received_at));
    assert!(!record.message_id().contains(['\r', '\n']));
    assert!(!record.subject().contains([' ', '*', '>']));
});
