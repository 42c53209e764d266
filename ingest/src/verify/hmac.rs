//! HMAC-SHA-256 over the body, in one of two forms: a header of one's own choice, or the Standard Webhooks
//! scheme (standardwebhooks.com). For relays in front of us; monday.com itself signs no bodies.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use leadpulse_service::config::{self, Encoding};
use secrecy::ExposeSecret;
use sha2::Sha256;

use super::{Keyed, Rejected, Secret};

const ID: &str = "webhook-id";
const TIMESTAMP: &str = "webhook-timestamp";
const SIGNATURE: &str = "webhook-signature";
/// A sender in the middle of a rotation sends two; no one sends more than this.
const MAX_SIGNATURES: usize = 8;

#[derive(Debug)]
pub(crate) struct BodyMac {
    keys: Vec<Keyed<Hmac<Sha256>>>,
    scheme: config::Hmac,
}

/// A secret that the Standard Webhooks scheme can't read.
#[derive(Debug)]
pub(super) struct NotBase64;

impl BodyMac {
    pub(super) fn new(secrets: &[Secret], scheme: config::Hmac) -> Result<Self, NotBase64> {
        let mut keys = Vec::new();
        for secret in secrets {
            let text = secret.secret.expose_secret();
            let key = match (&scheme, text.strip_prefix("whsec_")) {
                (config::Hmac::Standard { .. }, encoded) => {
                    STANDARD.decode(encoded.unwrap_or(text)).map_err(|_| NotBase64)?
                }
                (config::Hmac::Header { .. }, _) => text.as_bytes().to_vec(),
            };
            // Who leaves the rest of `whsec_` out would let in everybody.
            if key.is_empty() {
                return Err(NotBase64);
            }
            let key = Hmac::new_from_slice(&key).map_err(|_| NotBase64)?;
            keys.push(Keyed::new(secret, key));
        }
        Ok(Self { keys, scheme })
    }

    /// The headers that carry the proof. They prove this body and nothing else, so they may be kept.
    pub(super) fn headers(&self) -> Vec<&str> {
        match &self.scheme {
            config::Hmac::Standard { .. } => vec![ID, TIMESTAMP, SIGNATURE],
            config::Hmac::Header { header, timestamp_header, .. } => {
                std::iter::once(header.as_str()).chain(timestamp_header.as_deref()).collect()
            }
        }
    }

    pub(super) fn check(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), Rejected> {
        match &self.scheme {
            config::Hmac::Standard { tolerance } => {
                let (id, timestamp) = (text(headers, ID)?, text(headers, TIMESTAMP)?);
                let signatures = standard_signatures(text(headers, SIGNATURE)?)?;
                self.check_mac(&[id, ".", timestamp, "."], body, &signatures, now)?;
                check_timestamp(timestamp, tolerance.as_secs(), now)
            }
            config::Hmac::Header { header, prefix, encoding, timestamp_header, tolerance } => {
                let signature = text(headers, header)?.trim();
                let signature =
                    signature.strip_prefix(prefix.as_str()).ok_or(Rejected::Malformed)?;
                let signatures = [decode(signature, *encoding)?];
                let Some(timestamp_header) = timestamp_header else {
                    return self.check_mac(&[], body, &signatures, now);
                };
                let timestamp = text(headers, timestamp_header)?;
                self.check_mac(&[timestamp, "."], body, &signatures, now)?;
                check_timestamp(timestamp, tolerance.as_secs(), now)
            }
        }
    }

    fn check_mac(
        &self,
        before: &[&str],
        body: &[u8],
        signatures: &[Vec<u8>],
        now: DateTime<Utc>,
    ) -> Result<(), Rejected> {
        let mut known = false;
        for key in self.keys.iter().filter(|key| key.holds_at(now)) {
            let mut mac = key.key.clone();
            for part in before {
                mac.update(part.as_bytes());
            }
            mac.update(body);
            for signature in signatures {
                known |= mac.clone().verify_slice(signature).is_ok();
            }
        }
        known.then_some(()).ok_or(Rejected::Signature)
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<&'h str, Rejected> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(Rejected::Missing)?;
    // Of two, a proxy in front may have checked the other one.
    if values.next().is_some() {
        return Err(Rejected::Malformed);
    }
    value.to_str().map_err(|_| Rejected::Malformed)
}

fn decode(signature: &str, encoding: Encoding) -> Result<Vec<u8>, Rejected> {
    match encoding {
        Encoding::Hex => hex::decode(signature).map_err(|_| Rejected::Malformed),
        Encoding::Base64 => STANDARD.decode(signature).map_err(|_| Rejected::Malformed),
    }
}

/// `v1,BASE64 v1,BASE64 …`; other versions are for other verifiers.
fn standard_signatures(header: &str) -> Result<Vec<Vec<u8>>, Rejected> {
    let signatures: Vec<_> = header
        .split(' ')
        .take(MAX_SIGNATURES)
        .filter_map(|signature| STANDARD.decode(signature.strip_prefix("v1,")?).ok())
        .collect();
    if signatures.is_empty() { Err(Rejected::Malformed) } else { Ok(signatures) }
}

fn check_timestamp(seconds: &str, tolerance: u64, now: DateTime<Utc>) -> Result<(), Rejected> {
    let seconds: i64 = seconds.parse().map_err(|_| Rejected::Malformed)?;
    let tolerance = i64::try_from(tolerance).unwrap_or(i64::MAX);
    let age = now.timestamp().saturating_sub(seconds);
    match age {
        age if age > tolerance => Err(Rejected::Expired),
        age if age < tolerance.saturating_neg() => Err(Rejected::NotYetValid),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
