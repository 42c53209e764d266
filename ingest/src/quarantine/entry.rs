//! One refused request as it stands in the quarantine.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{Refused, SealingKey};
use crate::verify::{Proof, Rejected};

/// Headers whose values are no secret. Of all others only the name is kept.
const PLAIN: [&str; 6] = [
    "content-type",
    "content-encoding",
    "content-length",
    "traceparent",
    "transfer-encoding",
    "user-agent",
];
/// Since 2, a header that came twice stands in an entry twice.
const VERSION: u8 = 2;
const REDACTED: &str = "redacted";
const MAX_HEADERS: usize = 64;
/// Of an entry without a body, which nobody can release.
const FEW_HEADERS: usize = 16;
const MAX_NAME_BYTES: usize = 64;
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
    pub signature: Pairs,
    pub token_sha256: Option<String>,
    /// All headers, sealed.
    pub sealed: Option<String>,
    /// Base64 of what was read of the body.
    pub body: String,
    pub truncated: bool,
}

impl Entry {
    /// About the bytes that the entry of a request will have: body and headers are written as base64.
    pub(super) fn size(refused: &Refused<'_>, limit: usize) -> usize {
        let headers = refused.proof.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
        (refused.body.len().min(limit) + headers) / 3 * 4
    }

    pub(super) fn of(refused: &Refused<'_>, key: Option<&SealingKey>, limit: usize) -> Self {
        let Refused { refusal, source, proof, body, .. } = refused;
        let known = (!refused.stranger).then_some(*source);
        let kept = body.get(..limit.min(body.len())).unwrap_or_default();
        let missing = refusal.body_is_missing();
        // What proves a body is of no use without it.
        let signature = if missing { Vec::new() } else { source.verifier.signature_headers() };
        let key = key.filter(|_| !missing);
        let headers = redacted(&proof.headers, if missing { FEW_HEADERS } else { MAX_HEADERS });
        Self {
            v: VERSION,
            reason: refusal.reason().to_owned(),
            status: refusal.status().as_u16(),
            org: known.map(|source| source.org.clone()),
            source: refused.key.to_owned(),
            received_at: Utc::now(),
            trace_id: refused.trace.trace_id_hex(),
            headers,
            signature: pairs(&proof.headers, |name| signature.contains(&name)),
            token_sha256: proof.token_digest.map(hex::encode),
            sealed: key.and_then(|key| seal(key, &proof.headers)),
            body: STANDARD.encode(kept),
            truncated: kept.len() < body.len() || missing,
        }
    }

    pub fn read(payload: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            v: u8,
        }
        let entry = serde_json::from_slice::<Self>(payload);
        let v = match &entry {
            Ok(entry) => Some(entry.v),
            Err(_) => serde_json::from_slice::<Version>(payload).ok().map(|version| version.v),
        };
        ensure!(v.is_none_or(|v| v <= VERSION), "a newer version of ingest has written it");
        entry.context("it is no entry")
    }

    /// An entry of before kept of two proofs one; that there were two is all that was wrong with some.
    pub fn may_lack_a_proof(&self) -> bool {
        self.v < VERSION && self.reason == Rejected::Malformed.reason()
    }

    pub fn body(&self) -> Result<Vec<u8>> {
        STANDARD.decode(&self.body).context("the entry's body is no base64")
    }

    /// What the request brought along to prove its sender, as far as it was kept. A header that came twice
    /// comes twice again: of two, nobody knows which one counts.
    pub fn proof(&self, key: Option<&SealingKey>) -> Proof {
        let sealed = self.sealed.as_deref().zip(key).and_then(|(sealed, key)| key.open(sealed));
        let opened = sealed.and_then(|json| serde_json::from_slice::<Pairs>(&json).ok());
        let kept = opened.as_ref().unwrap_or(&self.signature).0.iter();
        let headers: HeaderMap = kept.filter_map(|(name, value)| header(name, value)).collect();
        let digest = self.token_sha256.as_deref().and_then(|digest| hex::decode(digest).ok());
        Proof { headers, token_digest: digest.and_then(|digest| digest.try_into().ok()) }
    }
}

/// Headers, each as often as it came.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Pairs(Vec<(String, String)>);

/// As version 2 writes them, and as version 1 did.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Pairs(Vec<(String, String)>),
    Map(BTreeMap<String, String>),
}

impl From<Written> for Pairs {
    fn from(written: Written) -> Self {
        match written {
            Written::Pairs(pairs) => Self(pairs),
            Written::Map(map) => Self(map.into_iter().collect()),
        }
    }
}

/// Each value of each header that is meant. A value that is no text stays one that no verifier reads.
fn pairs(headers: &HeaderMap, meant: impl Fn(&str) -> bool) -> Pairs {
    let meant = headers.iter().filter(|(name, _)| meant(name.as_str()));
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Pairs(meant.map(|(name, value)| (name.as_str().to_owned(), text(value))).collect())
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((name.parse().ok()?, HeaderValue::from_bytes(value.as_bytes()).ok()?))
}

fn seal(key: &SealingKey, headers: &HeaderMap) -> Option<String> {
    key.seal(&serde_json::to_vec(&pairs(headers, |_| true)).ok()?)
}

fn redacted(headers: &HeaderMap, most: usize) -> BTreeMap<String, String> {
    let shown = |name: &HeaderName, value: &HeaderValue| match value.to_str() {
        Ok(text) if PLAIN.contains(&name.as_str()) => text.chars().take(MAX_VALUE_BYTES).collect(),
        _ => REDACTED.to_owned(),
    };
    let named = headers.iter().take(most);
    let short = |name: &HeaderName| name.as_str().chars().take(MAX_NAME_BYTES).collect();
    named.map(|(name, value)| (short(name), shown(name, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_version_1_is_read_and_not_trusted_where_it_may_lack_a_proof() {
        let entry = |reason: &str| -> Entry {
            let json = serde_json::json!({
                "v": 1, "reason": reason, "status": 401, "org": "demo", "source": "crm",
                "received_at": "2026-11-01T00:00:00Z", "trace_id": "x", "headers": {},
                "signature": { "x-signature": "ab" }, "token_sha256": null, "sealed": null,
                "body": "", "truncated": false,
            });
            serde_json::from_value(json).unwrap()
        };
        let known = entry("auth_signature");
        assert_eq!(known.proof(None).headers["x-signature"], "ab");
        assert!(!known.may_lack_a_proof() && entry("auth_malformed").may_lack_a_proof());
    }

    #[test]
    fn a_header_that_came_twice_is_sealed_twice() {
        let twice = ["x", "y"].map(|value| {
            (HeaderName::from_static("authorization"), HeaderValue::from_static(value))
        });
        let kept = pairs(&HeaderMap::from_iter(twice), |_| true);
        let json = serde_json::to_string(&kept).unwrap();
        assert_eq!(json, r#"[["authorization","x"],["authorization","y"]]"#);
        assert_eq!(serde_json::from_str::<Pairs>(&json).unwrap(), kept);
    }
}
