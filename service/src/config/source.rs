//! The webhook sources of the orgs: who posts, and how it is verified.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, FixedOffset, Utc};
use secrecy::SecretString;

use super::{
    document::{Environment, Section},
    org::{identifier, small},
    secret::SecretRef,
};

/// Whoever posts webhooks for an org. The key stands in the URL; the secret belongs to one source only.
#[derive(Debug, Clone)]
pub struct Source {
    /// `POST /webhooks/monday/{key}`; unique over all orgs.
    pub key: String,
    pub verify: Verify,
    /// Verified webhooks a second at most, with bursts of twice as many; more are answered 429.
    /// Default: 10000.
    pub rate_per_second: u32,
}

#[derive(Debug, Clone)]
pub enum Verify {
    /// monday.com's HS256 JWT, signed with the app's signing secret.
    Jwt {
        secrets: Vec<NamedSecret>,
        /// The accepted `aud` values; empty accepts any.
        audience: Vec<String>,
        /// Seconds of tolerance for `exp` and `iat`. Default: 60.
        leeway_seconds: u64,
    },
    /// An HMAC over the body, for relays in front of us.
    Hmac { secrets: Vec<NamedSecret>, scheme: Hmac },
    /// An unguessable last path segment, for webhooks made with a personal token.
    Token { secrets: Vec<NamedSecret> },
}

/// How an HMAC-SHA-256 comes along with a body.
#[derive(Debug, Clone)]
pub enum Hmac {
    /// A header with the signature.
    Header {
        /// The header's name. Default: `x-signature`.
        header: String,
        /// What stands before the signature, such as `sha256=`. Default: nothing.
        prefix: String,
        /// `hex` or `base64`. Default: hex.
        encoding: Encoding,
        /// A header with unix seconds. Where it is set, `{timestamp}.{body}` is signed instead of the body.
        timestamp_header: Option<String>,
        /// How far the timestamp may lie from now. Seconds. Default: 300.
        tolerance: Duration,
    },
    /// The Standard Webhooks scheme, `preset = "standard-webhooks"`: `webhook-id`, `webhook-timestamp` and
    /// `webhook-signature`; the secret may be spelt `whsec_…`.
    Standard {
        /// How far the timestamp may lie from now. Seconds. Default: 300.
        tolerance: Duration,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Hex,
    Base64,
}

impl Verify {
    pub fn secrets(&self) -> &[NamedSecret] {
        match self {
            Self::Jwt { secrets, .. } | Self::Hmac { secrets, .. } | Self::Token { secrets } => {
                secrets
            }
        }
    }
}

/// A secret with a label for the logs and, for a rotation, the instant after which it counts no more.
#[derive(Debug, Clone)]
pub struct NamedSecret {
    pub label: String,
    pub secret: SecretRef,
    pub until: Option<DateTime<Utc>>,
    place: String,
}

impl NamedSecret {
    /// The secret itself; the error says which entry of the file is to blame.
    pub fn resolve(&self, environment: Environment<'_>) -> Result<SecretString, super::Problem> {
        self.secret.resolve(environment).map_err(|message| self.problem(message))
    }

    /// A problem at this entry's place.
    pub fn problem(&self, message: impl Into<String>) -> super::Problem {
        super::Problem { place: self.place.clone(), message: message.into() }
    }
}

pub(super) fn read_source(section: Section<'_, '_>, keys: &mut HashSet<String>) -> Option<Source> {
    let key = section.required("key", identifier);
    if let Some(key) = &key
        && !keys.insert(key.clone())
    {
        section.report(format!(
            "the source key `{key}` stands in this file twice; a key belongs to one org"
        ));
    }
    let secrets: Vec<_> = section.sections("secrets").into_iter().filter_map(read_secret).collect();
    if secrets.is_empty() {
        section.report("a source needs at least one entry in `secrets`");
    }
    let rate_per_second = small(section.number("rate_per_second", None, 10_000, 1..=10_000_000));
    let verify = section.required("verify", |scheme| match scheme {
        "jwt" | "hmac" | "token" => Ok(scheme.to_owned()),
        _ => Err(format!("is `{scheme}`; it must be `jwt`, `hmac` or `token`")),
    });
    let verify = match verify?.as_str() {
        "jwt" => Verify::Jwt {
            secrets,
            audience: read_texts(&section, "audience"),
            leeway_seconds: section.number("leeway_seconds", None, 60, 0..=3600),
        },
        "hmac" => Verify::Hmac { secrets, scheme: read_hmac(&section) },
        _ => Verify::Token { secrets },
    };
    section.finish();
    Some(Source { key: key?, verify, rate_per_second })
}

const CREDENTIALS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

fn read_hmac(section: &Section<'_, '_>) -> Hmac {
    let tolerance = Duration::from_secs(section.number("tolerance_seconds", None, 300, 1..=86_400));
    let preset = section.get::<String>("preset").and_then(|found| {
        section.parsed("preset", found, |name| match name {
            "standard-webhooks" => Ok(()),
            _ => Err(format!("is `{name}`; there is one preset, `standard-webhooks`")),
        })
    });
    if preset.is_some() {
        return Hmac::Standard { tolerance };
    }
    let name = |key| {
        let found = section.get::<String>(key)?;
        section.parsed(key, found, |name| {
            let valid = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            let name = name.to_ascii_lowercase();
            if name.is_empty() || !name.bytes().all(valid) {
                return Err(format!("`{name}` is no header's name"));
            }
            // What proves one body is kept with it in the quarantine; these hold what opens more doors.
            if CREDENTIALS.contains(&name.as_str()) {
                return Err(format!("`{name}` holds credentials, no signature of a body"));
            }
            Ok(name)
        })
    };
    let encoding = section.get::<String>("encoding").and_then(|found| {
        section.parsed("encoding", found, |text| match text {
            "hex" => Ok(Encoding::Hex),
            "base64" => Ok(Encoding::Base64),
            _ => Err(format!("is `{text}`; it must be `hex` or `base64`")),
        })
    });
    Hmac::Header {
        header: name("header").unwrap_or_else(|| "x-signature".to_owned()),
        prefix: section.get::<String>("prefix").map(|found| found.value).unwrap_or_default(),
        encoding: encoding.unwrap_or(Encoding::Hex),
        timestamp_header: name("timestamp_header"),
        tolerance,
    }
}

fn read_secret(section: Section<'_, '_>) -> Option<NamedSecret> {
    let label = section.required("label", |text| Ok(text.to_owned()));
    let place = section.get::<String>("secret").map(|found| found.place);
    let secret = section.required("secret", SecretRef::parse);
    let until = section.get::<Instant>("until").map(|found| found.value.0);
    section.finish();
    Some(NamedSecret { label: label?, secret: secret?, until, place: place? })
}

/// A TOML offset date-time.
struct Instant(DateTime<Utc>);

impl super::document::Scalar for Instant {
    const WHAT: &'static str = "an instant such as 2027-01-01T00:00:00Z";
    fn from_toml(value: &toml::de::DeValue<'_>) -> Option<Self> {
        let text = value.as_datetime()?.to_string();
        Self::from_text(&text)
    }
    fn from_text(text: &str) -> Option<Self> {
        DateTime::<FixedOffset>::parse_from_rfc3339(text).ok().map(|at| Self(at.to_utc()))
    }
}

fn read_texts(section: &Section<'_, '_>, key: &'static str) -> Vec<String> {
    let mut texts = Vec::new();
    for value in section.array(key) {
        match value.get_ref().as_str() {
            Some(text) => texts.push(text.to_owned()),
            None => section.report_value(value, format!("`{key}` lists texts")),
        }
    }
    texts
}
