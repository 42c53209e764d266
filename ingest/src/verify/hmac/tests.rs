use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use secrecy::SecretString;

use super::*;

const NOW: i64 = 1_772_445_600;

fn verifier(secret: &str, scheme: config::Hmac) -> BodyMac {
    let secret = SecretString::from(secret.to_owned());
    BodyMac::new(&[Secret { label: "x".into(), secret, until: None }], scheme).unwrap()
}

fn header_scheme(prefix: &str, encoding: Encoding, timestamp: Option<&str>) -> config::Hmac {
    config::Hmac::Header {
        header: "x-signature".into(),
        prefix: prefix.into(),
        encoding,
        timestamp_header: timestamp.map(str::to_owned),
        tolerance: Duration::from_secs(300),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

fn check(verifier: &BodyMac, pairs: &[(&'static str, &str)], body: &str) -> Result<(), Rejected> {
    verifier.check(&headers(pairs), body.as_bytes(), DateTime::from_timestamp(NOW, 0).unwrap())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// GitHub's documentation has this secret, body and signature.
#[test]
fn githubs_example_is_verified() {
    let verifier =
        verifier("It's a Secret to Everybody", header_scheme("sha256=", Encoding::Hex, None));
    let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    assert_eq!(check(&verifier, &[("x-signature", signature)], "Hello, World!"), Ok(()));
    let cases = [
        ("Hello, World", signature, Rejected::Signature),
        ("Hello, World!", &signature[7..], Rejected::Malformed),
        ("Hello, World!", "sha256=zz", Rejected::Malformed),
        ("Hello, World!", "sha256=", Rejected::Signature),
        ("Hello, World!", &signature[..signature.len() - 2], Rejected::Signature),
    ];
    for (body, signature, expected) in cases {
        assert_eq!(check(&verifier, &[("x-signature", signature)], body), Err(expected));
    }
    assert_eq!(check(&verifier, &[], "Hello, World!"), Err(Rejected::Missing));
    let twice = [("x-signature", signature), ("x-signature", "sha256=00")];
    assert_eq!(check(&verifier, &twice, "Hello, World!"), Err(Rejected::Malformed));
}

#[test]
fn a_timestamp_is_signed_with_the_body_and_must_be_near() {
    let verifier = verifier("key", header_scheme("", Encoding::Base64, Some("x-timestamp")));
    let at = |seconds: i64| {
        let signature = STANDARD.encode(mac(b"key", &format!("{seconds}.body")));
        let time = seconds.to_string();
        check(&verifier, &[("x-signature", &signature), ("x-timestamp", &time)], "body")
    };
    assert_eq!(at(NOW), Ok(()));
    assert_eq!(at(NOW - 300), Ok(()));
    assert_eq!(at(NOW - 301), Err(Rejected::Expired));
    assert_eq!(at(NOW + 301), Err(Rejected::NotYetValid));
    let signature = STANDARD.encode(mac(b"key", "body"));
    let bare = [("x-signature", signature.as_str()), ("x-timestamp", "1772445600")];
    assert_eq!(check(&verifier, &bare, "body"), Err(Rejected::Signature));
    assert_eq!(check(&verifier, &bare[..1], "body"), Err(Rejected::Missing));
}

/// The example of the Standard Webhooks specification's reference libraries.
#[test]
fn the_standard_webhooks_example_is_verified() {
    let scheme = || config::Hmac::Standard { tolerance: Duration::from_secs(300) };
    let verifier = verifier("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", scheme());
    let example = [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ];
    let at = |seconds| {
        let now = DateTime::from_timestamp(seconds, 0).unwrap();
        verifier.check(&headers(&example), br#"{"test": 2432232314}"#, now)
    };
    assert_eq!(at(1_614_265_330), Ok(()));
    assert_eq!(at(1_614_265_331 + 300), Err(Rejected::Expired));
    assert!(
        BodyMac::new(
            &[Secret { label: "x".into(), secret: SecretString::from("whsec_!"), until: None }],
            scheme()
        )
        .is_err()
    );
}

#[test]
fn of_several_standard_signatures_one_is_enough() {
    let verifier = verifier("a2V5", config::Hmac::Standard { tolerance: Duration::from_secs(300) });
    let good = format!("v1,{}", STANDARD.encode(mac(b"key", &format!("id.{NOW}.body"))));
    let with = |signature: &str| {
        let time = NOW.to_string();
        let pairs = [
            ("webhook-id", "id"),
            ("webhook-timestamp", time.as_str()),
            ("webhook-signature", signature),
        ];
        check(&verifier, &pairs, "body")
    };
    assert_eq!(with(&good), Ok(()));
    assert_eq!(with(&format!("v1,AAAA v1a,xyz {good}")), Ok(()));
    assert_eq!(with("v1,AAAA"), Err(Rejected::Signature));
    assert_eq!(with(&good.replace("v1,", "v2,")), Err(Rejected::Malformed));
    assert_eq!(with(""), Err(Rejected::Malformed));
}

/// With an empty key anybody could sign.
#[test]
fn a_secret_of_the_preset_that_is_empty_or_no_base64_is_refused() {
    for text in ["whsec_", "whsec_*", "no base64!"] {
        let secret = Secret { label: "x".into(), secret: SecretString::from(text), until: None };
        let scheme = config::Hmac::Standard { tolerance: Duration::from_secs(300) };
        assert!(BodyMac::new(&[secret], scheme).is_err(), "{text}");
    }
}
