//! Requests as bytes, and what is expected of them.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use tests::{
    door::{Door, MAC_SECRET, Message, STANDARD_SECRET, TOKEN},
    harness::{Claims, SECRET, SHORT_LIVED_TOKEN, sign_jwt},
};

/// Where a request is found afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    Stored,
    Quarantined,
    Nowhere,
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub name: &'static str,
    /// Sent one after the other, with a pause between.
    pub parts: Vec<Vec<u8>>,
    pub status: u16,
    pub metric: &'static str,
    pub labels: &'static [(&'static str, &'static str)],
    pub kept: Kept,
}

impl Case {
    /// A webhook that is taken in.
    pub(super) fn stored(name: &'static str, request: Vec<u8>) -> Self {
        let labels = &[("outcome", "stored")];
        let metric = "ingest_webhooks_total";
        Self { name, parts: vec![request], status: 200, metric, labels, kept: Kept::Stored }
    }

    /// A challenge: answered, and neither stored nor refused.
    pub(super) fn challenge(name: &'static str, request: Vec<u8>) -> Self {
        let labels = &[("outcome", "challenge")];
        Self { labels, kept: Kept::Nowhere, ..Self::stored(name, request) }
    }

    /// What is refused for the reason in `labels`, and kept in the quarantine.
    pub(super) fn refused(
        name: &'static str,
        status: u16,
        labels: &'static [(&'static str, &'static str)],
        request: Vec<u8>,
    ) -> Self {
        let metric = "ingest_webhooks_total";
        Self { name, parts: vec![request], status, metric, labels, kept: Kept::Quarantined }
    }

    /// The same, sent in parts.
    pub(super) fn in_parts(self, parts: Vec<Vec<u8>>) -> Self {
        Self { parts, ..self }
    }

    pub(super) fn reason(&self) -> &'static str {
        self.labels.iter().find(|(name, _)| *name == "reason").map_or("none", |(_, value)| value)
    }
}

pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    [request.as_bytes(), b"\r\n", body].concat()
}

pub(super) fn jwt() -> String {
    jwt_with(SECRET)
}

pub(super) fn jwt_with(secret: &str) -> String {
    sign_jwt(&Claims::default(), secret)
}

/// Any header and claims, signed.
pub(super) fn jwt_of(header: &Value, claims: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(mac(SECRET.as_bytes(), signed.as_bytes()));
    format!("{signed}.{signature}")
}

pub(crate) fn mac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text);
    mac.finalize().into_bytes().to_vec()
}

/// A webhook of the source `demo-crm` with this header.
pub(crate) fn authorized(header: &str, body: &[u8]) -> Vec<u8> {
    post("/webhooks/monday/demo-crm", &[("authorization", header)], body)
}

/// A webhook as monday.com signs it.
pub(crate) fn signed(body: &[u8]) -> Vec<u8> {
    authorized(&jwt(), body)
}

pub(crate) fn by_token(body: &[u8]) -> Vec<u8> {
    post(&format!("/webhooks/monday/by-token/{TOKEN}"), &[], body)
}

/// An event that no other case has.
pub(super) fn event(id: &str) -> Vec<u8> {
    format!(r#"{{"event":{{"type":"update_name","boardId":9001,"pulseId":42,"case":"{id}"}}}}"#)
        .into_bytes()
}

/// No credential may be seen in a log, in the stream or in the quarantine.
pub(super) fn assert_no_secret(
    door: &Door,
    quarantine: &BTreeMap<u64, Message>,
    events: &BTreeMap<u64, Message>,
) {
    let listed = door.run(&["quarantine", "list", "--json"]);
    let places = [
        ("the log", door.ingest.log_text()),
        ("the quarantine", format!("{quarantine:?}")),
        ("the stream", format!("{events:?}")),
        ("the list", String::from_utf8_lossy(&listed.stdout).into_owned()),
    ];
    for (place, text) in places {
        assert_no_secret_in(place, &text);
    }
}

pub(crate) fn assert_no_secret_in(place: &str, text: &str) {
    let header = jwt();
    let head_of_every_token = header.split('.').next().unwrap();
    for secret in
        [SECRET, TOKEN, MAC_SECRET, STANDARD_SECRET, SHORT_LIVED_TOKEN, head_of_every_token]
    {
        assert!(!text.contains(secret), "{place} shows {secret}");
    }
}
