//! monday.com's signature: a JWT in `Authorization`, HS256 and nothing else (monday.md, Authentication).
//! It proves the sender only; there is no hash of the body in it.

use axum::http::{HeaderMap, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::Sha256;

use super::{Keyed, Rejected, Secret};

/// monday.com's tokens have some 500 bytes; more than this is not looked at.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The header of all of monday.com's tokens, `{"alg":"HS256","typ":"JWT"}`: known without a look into it.
const USUAL_HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

#[derive(Debug)]
pub(crate) struct Hs256 {
    keys: Vec<Keyed<Hmac<Sha256>>>,
    audience: Vec<String>,
    leeway_seconds: f64,
}

#[derive(Deserialize)]
struct Header<'t> {
    alg: &'t str,
    /// Extensions that must be understood; none is.
    crit: Option<serde::de::IgnoredAny>,
}

/// The claims that are looked at. `shortLivedToken` is a live credential and is never even decoded.
#[derive(Deserialize)]
struct Claims<'t> {
    #[serde(borrow)]
    exp: Option<&'t RawValue>,
    #[serde(borrow)]
    iat: Option<&'t RawValue>,
    /// Of a token that may be for anybody it is not read.
    #[serde(borrow)]
    aud: Option<&'t RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Hs256 {
    pub(super) fn new(secrets: &[Secret], audience: Vec<String>, leeway_seconds: u64) -> Self {
        let keys = secrets
            .iter()
            .filter_map(|secret| {
                // HMAC takes a key of any length; the error can't occur.
                let key = Hmac::new_from_slice(secret.secret.expose_secret().as_bytes()).ok()?;
                Some(Keyed::new(secret, key))
            })
            .collect();
        Self { keys, audience, leeway_seconds: leeway_seconds as f64 }
    }

    pub(super) fn check(&self, headers: &HeaderMap, now: DateTime<Utc>) -> Result<(), Rejected> {
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let header = given.next().ok_or(Rejected::Missing)?;
        // Of two, a proxy in front may have checked the other one.
        if given.next().is_some() {
            return Err(Rejected::Malformed);
        }
        let header = header.to_str().map_err(|_| Rejected::Malformed)?.trim();
        let token = strip_bearer(header);
        if token.is_empty() {
            return Err(Rejected::Missing);
        }
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Rejected::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Rejected::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Rejected::Malformed)?;
        if claims.contains('.') {
            return Err(Rejected::Malformed);
        }
        if header != USUAL_HEADER {
            check_header(&decode(header)?)?;
        }
        self.check_signature(signed, &decode(signature)?, now)?;
        self.check_claims(&decode(claims)?, now)
    }

    fn check_signature(
        &self,
        signed: &str,
        signature: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), Rejected> {
        let mut known = false;
        // Every current secret is tried, so that the time does not tell which one it was.
        for key in self.keys.iter().filter(|key| key.holds_at(now)) {
            let mut mac = key.key.clone();
            mac.update(signed.as_bytes());
            known |= mac.verify_slice(signature).is_ok();
        }
        known.then_some(()).ok_or(Rejected::Signature)
    }

    fn check_claims(&self, claims: &[u8], now: DateTime<Utc>) -> Result<(), Rejected> {
        let claims: Claims<'_> = serde_json::from_slice(claims).map_err(|_| Rejected::Malformed)?;
        let now = now.timestamp_millis() as f64 / 1e3;
        // A text is no number here: its quotes stand in the raw value.
        let seconds = |number: Option<&RawValue>| {
            number.and_then(|n| n.get().parse::<f64>().ok()).filter(|n| n.is_finite())
        };
        let expires = seconds(claims.exp).ok_or(Rejected::Malformed)?;
        if now > expires + self.leeway_seconds {
            return Err(Rejected::Expired);
        }
        let issued = seconds(claims.iat).ok_or(Rejected::Malformed)?;
        if issued > now + self.leeway_seconds {
            return Err(Rejected::NotYetValid);
        }
        if self.audience.is_empty() {
            return Ok(());
        }
        let meant = |audience: &String| self.audience.contains(audience);
        let audience = claims.aud.map(|aud| serde_json::from_str(aud.get()));
        let ours = match audience.transpose().map_err(|_| Rejected::Malformed)? {
            Some(Audience::One(audience)) => meant(&audience),
            Some(Audience::Several(several)) => several.iter().any(meant),
            None => false,
        };
        ours.then_some(()).ok_or(Rejected::Audience)
    }
}

fn strip_bearer(header: &str) -> &str {
    match header.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => header,
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Rejected> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Rejected::Malformed)
}

fn check_header(header: &[u8]) -> Result<(), Rejected> {
    let header: Header<'_> = serde_json::from_slice(header).map_err(|_| Rejected::Malformed)?;
    if header.alg != "HS256" || header.crit.is_some() {
        return Err(Rejected::Algorithm);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
