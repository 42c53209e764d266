//! Who sends it: forged, stale, malformed and missing proofs.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tests::{
    door::{MAC_SECRET, TOKEN},
    harness::SECRET,
};

use super::request::{Case, authorized, event, jwt, jwt_of, jwt_with, mac, post};

pub(super) fn cases() -> Vec<Case> {
    [jwts(), headers(), tokens(), macs(), standards()].concat()
}

const MISSING: &[(&str, &str)] = &[("reason", "auth_missing")];
const MALFORMED: &[(&str, &str)] = &[("reason", "auth_malformed")];
const ALGORITHM: &[(&str, &str)] = &[("reason", "auth_algorithm")];
const SIGNATURE: &[(&str, &str)] = &[("reason", "auth_signature")];
const EXPIRED: &[(&str, &str)] = &[("reason", "auth_expired")];
const EARLY: &[(&str, &str)] = &[("reason", "auth_not_yet_valid")];

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

fn claims() -> Value {
    json!({ "accountId": 1, "userId": 2, "iat": now(), "exp": now() + 300 })
}

fn with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    jwt_of(&json!({ "alg": "HS256" }), &claims)
}

fn without(name: &str) -> String {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    jwt_of(&json!({ "alg": "HS256" }), &claims)
}

fn of_algorithm(alg: &str) -> String {
    jwt_of(&json!({ "alg": alg, "typ": "JWT" }), &claims())
}

fn jwts() -> Vec<Case> {
    let good = jwt();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (head, payload) = signed.split_once('.').unwrap();
    let refused = |name, labels, token: &str| {
        Case::refused(name, 401, labels, authorized(token, &event(name)))
    };
    vec![
        Case::stored("a bare token", authorized(&good, &event("a bare token"))),
        Case::stored("a bearer token", authorized(&format!("Bearer {good}"), &event("bearer"))),
        refused("algorithm none", ALGORITHM, &of_algorithm("none")),
        refused("algorithm None", ALGORITHM, &of_algorithm("None")),
        refused("algorithm hs256", ALGORITHM, &of_algorithm("hs256")),
        refused("algorithm HS384", ALGORITHM, &of_algorithm("HS384")),
        refused("algorithm HS512", ALGORITHM, &of_algorithm("HS512")),
        refused("algorithm RS256", ALGORITHM, &of_algorithm("RS256")),
        refused("algorithm ES256", ALGORITHM, &of_algorithm("ES256")),
        refused("no algorithm", MALFORMED, &jwt_of(&json!({}), &claims())),
        refused(
            "a critical extension",
            ALGORITHM,
            &jwt_of(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims()),
        ),
        refused("a wrong secret", SIGNATURE, &jwt_with("another secret")),
        refused("the secret of another source", SIGNATURE, &jwt_with(TOKEN)),
        refused("an empty secret", SIGNATURE, &jwt_with("")),
        refused("no signature", SIGNATURE, &format!("{signed}.")),
        refused("half a signature", SIGNATURE, &format!("{signed}.{}", &signature[..20])),
        refused("a signature of another payload", SIGNATURE, &format!("{head}.e30.{signature}")),
        refused("two parts", MALFORMED, signed),
        refused("four parts", MALFORMED, &format!("{good}.{payload}")),
        refused("dots", MALFORMED, ".."),
        refused("padding", MALFORMED, &format!("{good}=")),
        refused("standard base64", MALFORMED, &format!("{signed}.+/+/")),
        refused(
            "claims that are no object",
            MALFORMED,
            &jwt_of(&json!({ "alg": "HS256" }), &json!([])),
        ),
        refused("an expired token", EXPIRED, &with("exp", json!(now() - 61))),
        refused("expired in the year 0", EXPIRED, &with("exp", json!(-62_000_000_000_i64))),
        refused("a token of tomorrow", EARLY, &with("iat", json!(now() + 86_400))),
        refused("no expiry", MALFORMED, &without("exp")),
        refused("no time of issue", MALFORMED, &without("iat")),
        refused("an expiry that is a text", MALFORMED, &with("exp", json!("2099-01-01"))),
        refused("an expiry beyond all numbers", MALFORMED, &{
            let huge: Value = serde_json::from_str("1e999").unwrap();
            with("exp", huge)
        }),
    ]
}

/// Somebody has mixed up the parts of the URL: what the quarantine shows must not be the token.
fn misspelt(name: &'static str, path: &str) -> Case {
    let request = post(&format!("/webhooks/monday/{path}"), &[], &event(name));
    Case::refused(name, 404, &[("reason", "unknown_source")], request)
}

fn headers() -> Vec<Case> {
    let good = jwt();
    let refused = |name, labels, header: &str| {
        Case::refused(name, 401, labels, authorized(header, &event(name)))
    };
    let path = "/webhooks/monday/demo-crm";
    let twice = [("authorization", good.as_str()), ("authorization", "x")];
    vec![
        Case::refused("no header", 401, MISSING, post(path, &[], &event("no header"))),
        Case::refused("two headers", 401, MALFORMED, post(path, &twice, &event("two"))),
        refused("an empty header", MISSING, ""),
        refused("only a scheme", MALFORMED, "Bearer"),
        refused("basic authentication", MALFORMED, "Basic dXNlcjpwYXNz"),
        refused("a token and more", MALFORMED, &format!("{good} {good}")),
        refused("9 KB of token", MALFORMED, &"x".repeat(9 * 1024)),
        refused("letters beyond ASCII", MALFORMED, "Bearer קוד"),
        Case::refused(
            "a source that nobody has",
            404,
            &[("reason", "unknown_source")],
            post("/webhooks/monday/nobody", &[("authorization", &good)], &event("nobody")),
        ),
        Case::refused(
            "a key that is no text",
            404,
            &[("reason", "unknown_source")],
            post("/webhooks/monday/%ff%fe", &[("authorization", &good)], &event("no text")),
        ),
        Case::refused(
            "a way out of the folder",
            404,
            &[("reason", "unknown_source")],
            post("/webhooks/monday/..%2f..%2fetc", &[], &event("out")),
        ),
        Case::refused(
            "a key of subject wildcards",
            404,
            &[("reason", "unknown_source")],
            post("/webhooks/monday/*.%3e", &[], &event("wild")),
        ),
        misspelt("a token as a source", TOKEN),
        misspelt("a token before its source", &format!("{TOKEN}/by-token")),
        misspelt("a token in its source's segment", &format!("by-token%2F{TOKEN}")),
    ]
}

fn tokens() -> Vec<Case> {
    let refused =
        |name, labels, path: &str| Case::refused(name, 401, labels, post(path, &[], &event(name)));
    let path = |token: &str| format!("/webhooks/monday/by-token/{token}");
    vec![
        Case::stored("the token", post(&path(TOKEN), &[], &event("the token"))),
        refused("no token", MISSING, "/webhooks/monday/by-token"),
        refused("a wrong token", SIGNATURE, &path("wrong")),
        refused("the beginning of the token", SIGNATURE, &path(&TOKEN[..8])),
        refused("the token and a letter", SIGNATURE, &path(&format!("{TOKEN}x"))),
        refused("the token in capitals", SIGNATURE, &path(&TOKEN.to_uppercase())),
        refused(
            "the token of a signed source",
            MISSING,
            &format!("/webhooks/monday/demo-crm/{SECRET}"),
        ),
    ]
}

fn macs() -> Vec<Case> {
    let path = "/webhooks/monday/by-mac";
    let signature = |body: &[u8]| hex::encode(mac(MAC_SECRET.as_bytes(), body));
    let sent =
        |value: &str, name: &str| post(path, &[("x-hub-signature-256", value)], &event(name));
    let refused = |name, labels, value: &str| Case::refused(name, 401, labels, sent(value, name));
    let good = format!("sha256={}", signature(&event("a signed body")));
    vec![
        Case::stored("a signed body", sent(&good, "a signed body")),
        refused("the signature of another body", SIGNATURE, &good),
        refused("a signature without its prefix", MALFORMED, &good[7..]),
        refused("a signature of SHA-1", MALFORMED, "sha1=aabbcc"),
        refused("a signature that is no hex", MALFORMED, "sha256=zz"),
        refused("an empty signature", SIGNATURE, "sha256="),
        Case::refused("no signed body", 401, MISSING, post(path, &[], &event("no signature"))),
    ]
}

fn standards() -> Vec<Case> {
    let sent = |name: &'static str, version: &str, at: i64| {
        let body = event(name);
        let time = at.to_string();
        let text = [b"msg_1.", time.as_bytes(), b".", &body].concat();
        let key = b"standard-secret-that-nobody-may-see";
        let signature = format!("{version},{}", STANDARD.encode(mac(key, &text)));
        let headers = [
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", time.as_str()),
            ("webhook-signature", signature.as_str()),
        ];
        post("/webhooks/monday/by-standard", &headers, &body)
    };
    vec![
        Case::stored("a standard webhook", sent("a standard webhook", "v1", now())),
        Case::refused("a stale one", 401, EXPIRED, sent("a stale one", "v1", now() - 400)),
        Case::refused("one of tomorrow", 401, EARLY, sent("one of tomorrow", "v1", now() + 400)),
        Case::refused("another version", 401, MALFORMED, sent("another version", "v1a", now())),
    ]
}
