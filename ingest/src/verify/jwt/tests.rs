use axum::http::HeaderValue;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_772_445_600;

fn secret(label: &str, text: &str, until: Option<i64>) -> Secret {
    Secret {
        label: label.to_owned(),
        secret: SecretString::from(text.to_owned()),
        until: until.map(at),
    }
}

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

fn sign(header: &Value, claims: &Value, key: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

fn claims() -> Value {
    json!({
        "accountId": 1, "userId": 7001, "aud": "https://leads.example/webhooks/monday/crm",
        "iat": NOW, "exp": NOW + 300, "shortLivedToken": "never-shown",
    })
}

fn hs256() -> Value {
    json!({ "alg": "HS256", "typ": "JWT" })
}

fn check_with(verifier: &Hs256, given: &str, now: i64) -> Result<(), Rejected> {
    let value = HeaderValue::from_str(given).unwrap();
    verifier.check(&HeaderMap::from_iter([(header::AUTHORIZATION, value)]), at(now))
}

fn check(header: &str, now: i64) -> Result<(), Rejected> {
    check_with(&Hs256::new(&[secret("current", "key", None)], Vec::new(), 60), header, now)
}

#[test]
fn a_bare_token_and_a_bearer_token_are_accepted() {
    let token = sign(&hs256(), &claims(), "key");
    for header in [token.clone(), format!("Bearer {token}"), format!("bearer  {token} ")] {
        assert_eq!(check(&header, NOW), Ok(()));
    }
}

#[test]
fn only_hs256_is_accepted_whatever_the_header_claims() {
    for alg in ["none", "None", "hs256", "HS384", "HS512", "RS256", ""] {
        let token = sign(&json!({ "alg": alg }), &claims(), "key");
        assert_eq!(check(&token, NOW), Err(Rejected::Algorithm), "{alg}");
    }
    let critical =
        sign(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims(), "key");
    assert_eq!(check(&critical, NOW), Err(Rejected::Algorithm));
    let unsigned = sign(&hs256(), &claims(), "key");
    let unsigned = unsigned.rsplit_once('.').unwrap().0;
    assert_eq!(check(&format!("{unsigned}."), NOW), Err(Rejected::Signature));
}

#[test]
fn time_is_checked_with_the_leeway_and_not_more() {
    let token = sign(&hs256(), &claims(), "key");
    assert_eq!(check(&token, NOW + 360), Ok(()));
    assert_eq!(check(&token, NOW + 361), Err(Rejected::Expired));
    assert_eq!(check(&token, NOW - 60), Ok(()));
    assert_eq!(check(&token, NOW - 61), Err(Rejected::NotYetValid));
}

#[test]
fn a_token_without_its_times_is_no_token() {
    for missing in ["exp", "iat"] {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(missing);
        assert_eq!(check(&sign(&hs256(), &claims, "key"), NOW), Err(Rejected::Malformed));
    }
    let mut claims = claims();
    claims["exp"] = json!("2099");
    assert_eq!(check(&sign(&hs256(), &claims, "key"), NOW), Err(Rejected::Malformed));
}

#[test]
fn a_rotation_has_no_gap_and_an_end() {
    let secrets = [secret("old", "old-key", Some(NOW + 10)), secret("new", "new-key", None)];
    let verifier = Hs256::new(&secrets, Vec::new(), 60);
    let (old, new) = (sign(&hs256(), &claims(), "old-key"), sign(&hs256(), &claims(), "new-key"));
    assert_eq!(check_with(&verifier, &old, NOW), Ok(()));
    assert_eq!(check_with(&verifier, &new, NOW), Ok(()));
    assert_eq!(check_with(&verifier, &old, NOW + 11), Err(Rejected::Signature));
    assert_eq!(check_with(&verifier, &new, NOW + 11), Ok(()));
}

#[test]
fn an_audience_is_checked_where_one_is_given() {
    let ours = vec!["https://leads.example/webhooks/monday/crm".to_owned()];
    let verifier = Hs256::new(&[secret("x", "key", None)], ours, 60);
    let with = |aud: Value| {
        let mut claims = claims();
        claims["aud"] = aud;
        check_with(&verifier, &sign(&hs256(), &claims, "key"), NOW)
    };
    assert_eq!(with(json!("https://leads.example/webhooks/monday/crm")), Ok(()));
    assert_eq!(with(json!(["x", "https://leads.example/webhooks/monday/crm"])), Ok(()));
    assert_eq!(with(json!("https://other.example")), Err(Rejected::Audience));
    assert_eq!(with(json!([])), Err(Rejected::Audience));
    assert_eq!(with(Value::Null), Err(Rejected::Audience));
}

#[test]
fn one_changed_character_anywhere_is_refused() {
    let token = sign(&hs256(), &claims(), "key");
    for index in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[index] = if bytes[index] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        assert!(check(&changed, NOW).is_err(), "byte {index}");
    }
    assert_eq!(check(&sign(&hs256(), &claims(), "other"), NOW), Err(Rejected::Signature));
}

#[test]
fn what_is_no_token_is_refused() {
    for header in ["", " ", "Bearer", "Bearer ", "a", "a.b", "a.b.c", "a.b.c.d", "..", "Basic eA=="]
    {
        assert!(check(header, NOW).is_err(), "{header}");
    }
    let padded = sign(&hs256(), &claims(), "key") + "=";
    assert_eq!(check(&padded, NOW), Err(Rejected::Malformed));
    assert_eq!(check(&"x".repeat(MAX_TOKEN_BYTES + 1), NOW), Err(Rejected::Malformed));
    let verifier = Hs256::new(&[secret("x", "key", None)], Vec::new(), 60);
    assert_eq!(verifier.check(&HeaderMap::new(), at(NOW)), Err(Rejected::Missing));
}
