//! One refused request as it stands in the quarantine.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Refused, SealingKey};
use crate::verify::Proof;

/// Headers whose values are no secret. Of all others only the name is kept.
const PLAIN: [&str; 6] = [
    "content-type",
    "content-encoding",
    "content-length",
    "traceparent",
    "transfer-encoding",
    "user-agent",
];
const REDACTED: &str = "redacted";
const MAX_HEADERS: usize = 64;
const MAX_VALUE_BYTES: usize = 256;

#[derive(Debug, Serialize, Deserialize)]
pub struct Entry {
    pub v: u8,
    pub reason: String,
    pub status: u16,
    pub org: Option<String>,
    /// The key of the source in the URL.
    pub source: String,
    pub received_at: DateTime<Utc>,
    pub trace_id: String,
    pub headers: BTreeMap<String, String>,
    /// Headers that prove this body alone.
    pub signature: BTreeMap<String, String>,
    pub token_sha256: Option<String>,
    /// All headers, sealed.
    pub sealed: Option<String>,
    /// Base64 of what was read of the body.
    pub body: String,
    pub truncated: bool,
}

impl Entry {
    pub(super) fn of(refused: &Refused<'_>, key: Option<&SealingKey>, limit: usize) -> Self {
        let Refused { refusal, source, proof, body, .. } = refused;
        let known = (!refused.stranger).then_some(*source);
        let kept = body.get(..limit.min(body.len())).unwrap_or_default();
        let signature = source.verifier.signature_headers();
        Self {
            v: 1,
            reason: refusal.reason().to_owned(),
            status: refusal.status().as_u16(),
            org: known.map(|source| source.org.clone()),
            source: refused.key.chars().take(63).collect(),
            received_at: Utc::now(),
            trace_id: refused.trace.trace_id_hex(),
            headers: redacted(&proof.headers),
            signature: texts(&proof.headers)
                .filter(|(name, _)| signature.contains(name))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            token_sha256: proof.token_digest.map(hex::encode),
            sealed: key.and_then(|key| key.seal(&headers_json(&proof.headers)?)),
            body: STANDARD.encode(kept),
            truncated: kept.len() < body.len() || refusal.body_is_missing(),
        }
    }

    pub fn body(&self) -> Result<Vec<u8>> {
        STANDARD.decode(&self.body).context("the entry's body is no base64")
    }

    /// What the request brought along to prove its sender, as far as it was kept.
    pub fn proof(&self, key: Option<&SealingKey>) -> Proof {
        let sealed = self.sealed.as_deref().zip(key).and_then(|(sealed, key)| key.open(sealed));
        let opened: BTreeMap<String, String> =
            sealed.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
        let header = |(name, value): (&String, &String)| {
            Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
        };
        let mut headers: HeaderMap = self.signature.iter().filter_map(header).collect();
        headers.extend(opened.iter().filter_map(header));
        let digest = self.token_sha256.as_deref().and_then(|digest| hex::decode(digest).ok());
        Proof { headers, token_digest: digest.and_then(|digest| digest.try_into().ok()) }
    }
}

fn texts(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
}

fn headers_json(headers: &HeaderMap) -> Option<Vec<u8>> {
    serde_json::to_vec(&texts(headers).collect::<BTreeMap<_, _>>()).ok()
}

fn redacted(headers: &HeaderMap) -> BTreeMap<String, String> {
    let shown = |name: &HeaderName, value: &HeaderValue| match value.to_str() {
        Ok(text) if PLAIN.contains(&name.as_str()) => text.chars().take(MAX_VALUE_BYTES).collect(),
        _ => REDACTED.to_owned(),
    };
    let named = headers.iter().take(MAX_HEADERS);
    named.map(|(name, value)| (name.as_str().to_owned(), shown(name, value))).collect()
}
