//! What it says: rubbish is refused, and whatever is an event at all is stored.

use super::request::{Case, authorized, by_token, event, jwt, post, signed};

pub(super) fn cases() -> Vec<Case> {
    [rubbish(), sizes(), encodings(), challenges(), oddities()].concat()
}

const NOT_JSON: &[(&str, &str)] = &[("reason", "not_json")];
const NOT_AN_EVENT: &[(&str, &str)] = &[("reason", "not_an_event")];
const TOO_DEEP: &[(&str, &str)] = &[("reason", "too_deep")];
const TOO_LARGE: &[(&str, &str)] = &[("reason", "body_too_large")];
const RECORD_TOO_LARGE: &[(&str, &str)] = &[("reason", "record_too_large")];
const BROKEN: &[(&str, &str)] = &[("reason", "body_broken")];
const TOO_SLOW: &[(&str, &str)] = &[("reason", "body_too_slow")];
const ENCODING: &[(&str, &str)] = &[("reason", "encoding")];

fn rubbish() -> Vec<Case> {
    let refused =
        |name, labels, body: &str| Case::refused(name, 400, labels, signed(body.as_bytes()));
    let deep =
        |n: usize| format!(r#"{{"event":{{"type":"x","v":{}1{}}}}}"#, "[".repeat(n), "]".repeat(n));
    vec![
        refused("no body", NOT_JSON, ""),
        refused("white space", NOT_JSON, " \r\n "),
        refused("a word", NOT_JSON, "hello"),
        refused("half an object", NOT_JSON, r#"{"event":{"type":"x""#),
        refused("an object and more", NOT_JSON, r#"{"event":{"type":"x"}} {}"#),
        refused("a trailing comma", NOT_JSON, r#"{"event":{"type":"x",}}"#),
        refused("single quotes", NOT_JSON, "{'event':{'type':'x'}}"),
        refused("a comment", NOT_JSON, "{/**/\"event\":{\"type\":\"x\"}}"),
        refused("not a number", NOT_JSON, r#"{"event":{"type":"x","v":NaN}}"#),
        refused("a line break in a text", NOT_JSON, "{\"event\":{\"type\":\"x\ny\"}}"),
        refused("a form", NOT_JSON, "event=x&type=y"),
        refused(
            "XML",
            NOT_JSON,
            "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><x>&a;</x>",
        ),
        refused("null", NOT_AN_EVENT, "null"),
        refused("an array", NOT_AN_EVENT, r#"[{"event":{"type":"x"}}]"#),
        refused("a text", NOT_AN_EVENT, r#""event""#),
        refused("a number", NOT_AN_EVENT, "1"),
        refused("an empty object", NOT_AN_EVENT, "{}"),
        refused("another object", NOT_AN_EVENT, r#"{"Event":{"type":"x"}}"#),
        refused("an event that is null", NOT_AN_EVENT, r#"{"event":null}"#),
        refused("an event that is an array", NOT_AN_EVENT, r#"{"event":[]}"#),
        refused("an event that is a text", NOT_AN_EVENT, r#"{"event":"{}"}"#),
        refused("an event without a type", NOT_AN_EVENT, r#"{"event":{"pulseId":1}}"#),
        refused("a type that is a number", NOT_AN_EVENT, r#"{"event":{"type":1}}"#),
        refused("a type that is empty", NOT_AN_EVENT, r#"{"event":{"type":""}}"#),
        refused("63 levels", TOO_DEEP, &deep(63)),
        refused("100,000 levels", TOO_DEEP, &deep(100_000)),
        refused("a million open brackets", TOO_DEEP, &"[".repeat(1_000_000)),
        Case::stored("62 levels", signed(deep(62).as_bytes())),
    ]
}

fn sizes() -> Vec<Case> {
    const MIB: usize = 1024 * 1024;
    let padded = |length: usize| {
        let (head, tail) = (r#"{"event":{"type":"big","v":""#, r#""}}"#);
        format!("{head}{}{tail}", "x".repeat(length - head.len() - tail.len())).into_bytes()
    };
    let path = "/webhooks/monday/demo-crm";
    let head = |length: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {}\r\n{length}\r\n\r\n", jwt())
            .into_bytes()
    };
    let chunked = |chunks: &[u8]| [&head("transfer-encoding: chunked")[..], chunks].concat();
    let large =
        b"10000\r\n".iter().copied().chain(std::iter::repeat_n(b'x', 0x10000)).chain(*b"\r\n");
    let large: Vec<u8> = large.collect();
    let no_text = [&br#"{"event":{"type":"x","v":""#[..], &[0xff; 900_000], b"\"}}"].concat();
    // A body without a length is none; what comes would be the next request.
    let lengthless = [&head("connection: close")[..], b"{}"].concat();
    vec![
        Case::stored("1 MiB to the byte", by_token(&padded(MIB))),
        Case::refused("one byte more", 413, TOO_LARGE, by_token(&padded(MIB + 1))),
        Case::refused("4 MiB", 413, TOO_LARGE, signed(&padded(4 * MIB))),
        Case::refused("a type of nearly 1 MiB", 413, RECORD_TOO_LARGE, {
            let kind = "t".repeat(MIB - 100);
            signed(format!(r#"{{"event":{{"type":"{kind}","n":1}}}}"#).as_bytes())
        }),
        Case::refused(
            "900,000 bytes that are no text",
            413,
            RECORD_TOO_LARGE,
            authorized(&jwt(), &no_text),
        ),
        Case::refused("chunks without an end", 413, TOO_LARGE, chunked(&large.repeat(20))),
        Case::stored(
            "small chunks",
            chunked(b"8\r\n{\"event\"\r\nc\r\n:{\"type\":\"x\"\r\n2\r\n}}\r\n0\r\n\r\n"),
        ),
        Case::refused("a chunk of no size", 400, BROKEN, chunked(b"zz\r\n{}\r\n0\r\n\r\n")),
        Case::refused("a chunk of a giant size", 400, BROKEN, chunked(b"fffffffffffffffff\r\n{}")),
        Case::refused("no length", 400, NOT_JSON, lengthless),
        Case::refused(
            "less than was announced",
            408,
            TOO_SLOW,
            [&head("content-length: 99")[..], b"{}"].concat(),
        ),
        Case::refused("a body that trickles", 408, TOO_SLOW, Vec::new()).in_parts(
            [head("content-length: 99")].into_iter().chain((0..8).map(|_| b"{".to_vec())).collect(),
        ),
        Case::refused(
            "two lengths, of which the chunks count",
            400,
            NOT_JSON,
            [&head("content-length: 4\r\ntransfer-encoding: chunked")[..], b"0\r\n\r\n"].concat(),
        ),
    ]
}

fn encodings() -> Vec<Case> {
    let sent = |name: &str, encoding: &str| {
        let headers = [("authorization", &*jwt()), ("content-encoding", encoding)];
        post("/webhooks/monday/demo-crm", &headers, &event(name))
    };
    vec![
        Case::refused("gzip", 415, ENCODING, sent("gzip", "gzip")),
        Case::refused("br", 415, ENCODING, sent("br", "br")),
        Case::refused("deflate", 415, ENCODING, sent("deflate", "deflate")),
        Case::refused("two encodings", 415, ENCODING, sent("two encodings", "identity, gzip")),
        Case::refused("a large one", 415, ENCODING, {
            let headers = [("authorization", &*jwt()), ("content-encoding", "gzip")];
            post("/webhooks/monday/demo-crm", &headers, &vec![b'x'; 1_000_000])
        }),
        Case::refused("a bomb's name", 415, ENCODING, sent("bomb", "x-gzip")),
        Case::stored("identity", sent("identity", "identity")),
    ]
}

fn challenges() -> Vec<Case> {
    let path = "/webhooks/monday/demo-crm";
    let long = format!(r#"{{"challenge":"{}"}}"#, "x".repeat(8 * 1024));
    let missing = &[("reason", "auth_missing")];
    let unsigned =
        |name, body: &str| Case::refused(name, 401, missing, post(path, &[], body.as_bytes()));
    vec![
        Case::challenge("a challenge", post(path, &[], br#"{"challenge":"abc"}"#)),
        Case::challenge("a signed challenge", signed(br#"{"challenge":"abc"}"#)),
        unsigned("a challenge that is a number", r#"{"challenge":1}"#),
        unsigned("a challenge with an event", r#"{"challenge":"x","event":{"type":"x"}}"#),
        unsigned("a challenge of 8 KB", &long),
        Case::refused(
            "a challenge to nobody",
            404,
            &[("reason", "unknown_source")],
            post("/webhooks/monday/nobody", &[], br#"{"challenge":"abc"}"#),
        ),
    ]
}

fn oddities() -> Vec<Case> {
    let stored = |name, fields: &str| {
        let body = format!(r#"{{"event":{{"type":"update_name",{fields}}}}}"#);
        Case::stored(name, signed(body.as_bytes()))
    };
    let bytes = |name, body: &[u8]| Case::stored(name, authorized(&jwt(), body));
    vec![
        stored("numbers as texts", r#""boardId":"9001","pulseId":"42","userId":"7""#),
        stored("negative users", r#""userId":-6,"boardId":1"#),
        stored("giant ids", r#""boardId":99999999999999999999999999,"pulseId":-1e400"#),
        stored("an id of wildcards", r#""boardId":"*.>","pulseId":"; drop table lead_fact""#),
        stored("a header in an id", r#""subscriptionId":1,"triggerUuid":"a\r\nNats-Rollup: all""#),
        stored(
            "an id of 100 KB",
            &format!(r#""subscriptionId":1,"triggerUuid":"{}""#, "u".repeat(100_000)),
        ),
        stored("a key twice", r#""boardId":1,"boardId":2,"pulseId":3,"pulseId":null"#),
        stored("a zero byte", r#""pulseName":"a\u0000b""#),
        stored("half an emoji", r#""pulseName":"\ud83d""#),
        stored("a number of many digits", &format!(r#""changedAt":{}.5"#, "9".repeat(5000))),
        stored("the library's own key", r#""v":{"$serde_json::private::Number":"x"},"w":1"#),
        stored("the library's other key", r#""v":{"$serde_json::private::RawValue":"{"},"w":2"#),
        stored(
            "times from other ages",
            r#""changedAt":-99999999999,"triggerTime":"+99999-01-01T00:00:00Z""#,
        ),
        stored("columns that are a text", r#""columnValues":"x","value":[]"#),
        bytes("an unknown type", br#"{"event":{"type":"brand.new > *"}}"#),
        bytes("a creation of nothing", br#"{"event":{"type":"create_pulse","columnValues":[1]}}"#),
        bytes(
            "bytes that are no text",
            b"{\"event\":{\"type\":\"x\",\"pulseName\":\"\xff\xc0\xaf\"}}",
        ),
        bytes("a byte order mark", b"\xef\xbb\xbf{\"event\":{\"type\":\"bom\"}}"),
        bytes("two events", br#"{"event":{"type":"one"},"event":{"type":"two"}}"#),
        bytes(
            "a type of 50 KB",
            format!(r#"{{"event":{{"type":"{}"}}}}"#, "t".repeat(50_000)).as_bytes(),
        ),
    ]
}
