//! The trust boundary: an [`Unverified`] request becomes a [`Verified`] one here and nowhere else, and
//! only from a [`Verified`] one can a record for the stream be made.
//!
//! Nothing in here is ever logged, published or shown but the reason of a rejection.

mod hmac;
mod jwt;
mod token;

pub(crate) use token::digest as token_digest;

use std::{fmt, sync::Arc};

use axum::http::HeaderMap;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use leadpulse_service::config::{Environment, NamedSecret, Problem, Verify};
use secrecy::{ExposeSecret, SecretString};

use crate::source::Source;

/// A request as it came, with what could prove who sent it.
pub struct Unverified<'r> {
    pub source: Arc<Source>,
    pub body: Bytes,
    pub received_at: DateTime<Utc>,
    pub proof: &'r Proof,
}

/// What a request brings along to prove its sender. It holds credentials and is never shown.
#[derive(Default)]
pub struct Proof {
    pub headers: HeaderMap,
    /// Of the last segment of the URL: all that is needed of it, and nothing that could be used.
    pub token_digest: Option<[u8; 32]>,
}

impl Proof {
    pub fn new(headers: HeaderMap, token: Option<&str>) -> Self {
        Self { headers, token_digest: token.map(token::digest) }
    }
}

/// A request whose sender is known. Only [`Unverified::verify`] makes one.
#[derive(Debug)]
pub struct Verified {
    source: Arc<Source>,
    body: Bytes,
    received_at: DateTime<Utc>,
}

impl Unverified<'_> {
    pub fn verify(self) -> Result<Verified, Rejected> {
        let Self { source, body, received_at, proof } = self;
        source.verifier.check(proof, &body, received_at)?;
        Ok(Verified { source, body, received_at })
    }
}

impl Verified {
    pub fn source(&self) -> &Source {
        &self.source
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    pub fn received_at(&self) -> DateTime<Utc> {
        self.received_at
    }
}

/// Why a request was not believed. The sender is never told; the operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Nothing that could be verified.
    Missing,
    /// Not in the form of the scheme.
    Malformed,
    /// Another algorithm than the only one.
    Algorithm,
    /// No current secret made this signature or token.
    Signature,
    Expired,
    /// Issued in the future.
    NotYetValid,
    Audience,
}

impl Rejected {
    pub fn reason(self) -> &'static str {
        match self {
            Self::Missing => "auth_missing",
            Self::Malformed => "auth_malformed",
            Self::Algorithm => "auth_algorithm",
            Self::Signature => "auth_signature",
            Self::Expired => "auth_expired",
            Self::NotYetValid => "auth_not_yet_valid",
            Self::Audience => "auth_audience",
        }
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

/// How one source proves itself, with its secrets in hand.
#[derive(Debug)]
pub(crate) enum Verifier {
    Jwt(jwt::Hs256),
    Hmac(hmac::BodyMac),
    Token(token::PathToken),
}

impl Verifier {
    pub(crate) fn new(verify: &Verify, env: Environment<'_>) -> Result<Self, Vec<Problem>> {
        let named = verify.secrets();
        let secrets = resolve(named, env)?;
        Ok(match verify {
            Verify::Jwt { audience, leeway_seconds, .. } => {
                Self::Jwt(jwt::Hs256::new(&secrets, audience.clone(), *leeway_seconds))
            }
            Verify::Hmac { scheme, .. } => {
                let mac = hmac::BodyMac::new(&secrets, scheme.clone()).map_err(|_| {
                    let problem =
                        "this secret is empty or no base64, which Standard Webhooks asks for";
                    named.iter().map(|named| named.problem(problem)).collect::<Vec<_>>()
                })?;
                Self::Hmac(mac)
            }
            Verify::Token { .. } => {
                let short = |secret: &Secret| secret.secret.expose_secret().len() < token::SHORTEST;
                let guessable = named.iter().zip(&secrets).filter(|(_, secret)| short(secret));
                let problem = format!("this token has fewer than {} characters", token::SHORTEST);
                let problems: Vec<_> =
                    guessable.map(|(named, _)| named.problem(problem.clone())).collect();
                if !problems.is_empty() {
                    return Err(problems);
                }
                Self::Token(token::PathToken::new(&secrets))
            }
        })
    }

    /// One that does the work of a real one and never agrees: nobody knows its secret.
    pub(crate) fn that_refuses() -> Self {
        let secret: [u8; 32] = rand::random();
        let secret = SecretString::from(hex::encode(secret));
        let secrets = [Secret { label: "nobody".into(), secret, until: None }];
        Self::Jwt(jwt::Hs256::new(&secrets, Vec::new(), 0))
    }

    /// Headers that prove one body and nothing else: they may be shown.
    pub(crate) fn signature_headers(&self) -> Vec<&str> {
        match self {
            Self::Hmac(mac) => mac.headers(),
            Self::Jwt(_) | Self::Token(_) => Vec::new(),
        }
    }

    /// Is this the digest of a token that would prove the sender, or would have?
    pub(crate) fn knows_token(&self, digest: &[u8; 32]) -> bool {
        match self {
            Self::Token(tokens) => tokens.knows(digest),
            Self::Jwt(_) | Self::Hmac(_) => false,
        }
    }

    fn check(&self, proof: &Proof, body: &[u8], now: DateTime<Utc>) -> Result<(), Rejected> {
        match self {
            Self::Jwt(jwt) => jwt.check(&proof.headers, now),
            Self::Hmac(mac) => mac.check(&proof.headers, body, now),
            Self::Token(token) => token.check(proof.token_digest.as_ref(), now),
        }
    }
}

/// A secret that was found, until it ends.
struct Secret {
    label: String,
    secret: SecretString,
    until: Option<DateTime<Utc>>,
}

fn resolve(secrets: &[NamedSecret], env: Environment<'_>) -> Result<Vec<Secret>, Vec<Problem>> {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for named in secrets {
        match named.resolve(env) {
            Ok(secret) => {
                found.push(Secret { label: named.label.clone(), secret, until: named.until });
            }
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

/// Something made of a secret, with the secret's label and end.
struct Keyed<K> {
    label: String,
    key: K,
    until: Option<DateTime<Utc>>,
}

impl<K> Keyed<K> {
    fn new(secret: &Secret, key: K) -> Self {
        Self { label: secret.label.clone(), key, until: secret.until }
    }

    fn holds_at(&self, now: DateTime<Utc>) -> bool {
        self.until.is_none_or(|until| now <= until)
    }
}

impl<K> fmt::Debug for Keyed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret `{}`", self.label)
    }
}

#[cfg(test)]
mod tests {
    use leadpulse_service::config::Config;

    use crate::source::Sources;

    #[test]
    fn a_token_that_can_be_guessed_is_refused_at_its_place() {
        let text = "[[orgs]]\nid='demo'\n[[orgs.sources]]\nkey='crm'\nverify='token'\n\
                    secrets=[{label='x',secret='env:TOKEN'}]";
        let config = Config::parse("leadpulse.toml", text, &|_| None).unwrap();
        let resolve = |token: &str| Sources::resolve(&config, &|_| Some(token.to_owned()));
        assert!(resolve("0123456789abcdef").is_ok());
        let said = resolve("0123456789abcde").unwrap_err().to_string();
        assert!(said.contains("leadpulse.toml:6") && said.contains("fewer than 16"), "{said}");
    }
}
