//! What a webhook costs before it is sent: counted, so that a change that doubles it is seen.

use allocation_counter::measure;
use axum::http::{HeaderMap, HeaderValue, header};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use chrono::Utc;
use hmac::{Hmac, KeyInit, Mac};
use leadpulse_service::config::Config;
use sha2::Sha256;

use crate::{
    event::Record,
    source::Sources,
    verify::{Proof, Unverified},
};

const CONFIG: &str = "[[orgs]]\nid='demo'\n[[orgs.sources]]\nkey='crm'\nverify='jwt'\n\
                      secrets=[{label='x',secret='env:S'}]";

fn token() -> String {
    let now = Utc::now().timestamp();
    let claims = format!(
        r#"{{"accountId":1,"userId":2,"aud":"https://x","iat":{now},"exp":{},"shortLivedToken":"{}"}}"#,
        now + 300,
        "t".repeat(300)
    );
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
        URL_SAFE_NO_PAD.encode(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(b"secret").unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
}

#[test]
fn a_webhook_of_1_kb_is_copied_once_into_its_envelope() {
    let config = Config::parse("leadpulse.toml", CONFIG, &|_| None).unwrap();
    let sources = Sources::resolve(&config, &|_| Some("secret".into())).unwrap();
    let value = HeaderValue::from_str(&token()).unwrap();
    let proof = Proof::new(HeaderMap::from_iter([(header::AUTHORIZATION, value)]), None);
    let head = r#"{"event":{"type":"update_name","boardId":9001,"pulseId":42,"subscriptionId":503,"triggerUuid":"0123","name":""#;
    let body = Bytes::from(format!("{head}{}\"}}}}", "x".repeat(1024 - head.len() - 3)));

    let mut verified = None;
    let verifying = measure(|| {
        let (source, body) = (sources.of("crm").0, body.clone());
        let unverified = Unverified { source, body, received_at: Utc::now(), proof: &proof };
        verified = Some(unverified.verify().unwrap());
    });
    let mut record = None;
    let enveloping = measure(|| record = Some(Record::of(verified.as_ref().unwrap()).unwrap()));
    let payload = record.unwrap().payload().len() as u64;
    eprintln!(
        "verify: {} allocations, {} bytes; envelope: {} allocations, {} bytes, of which {payload} are sent",
        verifying.count_total,
        verifying.bytes_total,
        enveloping.count_total,
        enveloping.bytes_total
    );
    // Three decoded parts of the token, and the numbers in its claims.
    assert!(verifying.count_total <= 12, "{verifying:?}");
    // The envelope's fields, and one buffer that holds the payload.
    assert!(enveloping.count_total <= 12, "{enveloping:?}");
    assert!(enveloping.bytes_total <= 2 * payload, "{enveloping:?}");
}
