//! monday.com's JWT, made by hand: the tests must not trust the code that verifies it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The live API credential within the token; it must never be seen anywhere.
pub const SHORT_LIVED_TOKEN: &str = "short-lived-token-that-nobody-may-see";

/// What a token says. The default is what monday.com would send now.
#[derive(Debug, Clone)]
pub struct Claims {
    pub issued_at: i64,
    pub expires_at: i64,
    pub audience: String,
}

impl Default for Claims {
    fn default() -> Self {
        let now = Utc::now().timestamp();
        let audience = "https://leadpulse.example/webhooks/monday/demo-crm".to_owned();
        Self { issued_at: now, expires_at: now + 300, audience }
    }
}

impl Claims {
    fn to_json(&self) -> Value {
        json!({
            "accountId": 12345, "userId": 7001, "aud": self.audience, "iat": self.issued_at,
            "exp": self.expires_at, "shortLivedToken": SHORT_LIVED_TOKEN
        })
    }
}

/// Signs with HS256.
pub fn sign_jwt(claims: &Claims, secret: &str) -> String {
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let signed =
        format!("{}.{}", part(json!({"alg": "HS256", "typ": "JWT"})), part(claims.to_json()));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length will do");
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}
