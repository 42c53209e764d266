//! How it is asked: methods, paths, and heads of which no request can be made.

use tests::door::TOKEN;

use super::request::{Case, event, jwt};

const METHOD: &[(&str, &str)] = &[("reason", "wrong_method")];
const NO_ROUTE: &[(&str, &str)] = &[("reason", "no_route")];
const MALFORMED: &[(&str, &str)] = &[("reason", "head_malformed")];
const TOO_LARGE: &[(&str, &str)] = &[("reason", "head_too_large")];
const TOO_SLOW: &[(&str, &str)] = &[("reason", "head_too_slow")];

pub(super) fn cases() -> Vec<Case> {
    [methods(), heads(), trickles()].concat()
}

fn bare(line: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
}

fn methods() -> Vec<Case> {
    let method = |name, method: &str| {
        Case::refused(
            name,
            405,
            METHOD,
            bare(&format!("{method} /webhooks/monday/demo-crm")).into(),
        )
    };
    let length = "connection: close\r\ncontent-length: 1000000";
    let put = [
        bare("PUT /webhooks/monday/demo-crm").replace("connection: close", length).into_bytes(),
        vec![b'x'; 1_000_000],
    ]
    .concat();
    let route =
        |name, path: &str| Case::refused(name, 404, NO_ROUTE, bare(&format!("POST {path}")).into());
    vec![
        method("GET", "GET"),
        method("PUT", "PUT"),
        method("DELETE", "DELETE"),
        method("PATCH", "PATCH"),
        method("OPTIONS", "OPTIONS"),
        method("HEAD", "HEAD"),
        method("TRACE", "TRACE"),
        method("a method of our own", "STEAL"),
        Case::refused("a PUT with a body", 405, METHOD, put),
        Case::refused("a POST to a page", 405, METHOD, bare("POST /health").into()),
        route("no path", "/"),
        route("no source", "/webhooks/monday/"),
        route("another receiver", "/webhooks/github/demo-crm"),
        route("an empty token", "/webhooks/monday/by-token/"),
        route("a longer path", "/webhooks/monday/demo-crm/token/more"),
        route("two slashes", "//webhooks/monday/demo-crm"),
        route("a token in a longer path", &format!("/webhooks/monday/by-token/{TOKEN}/more")),
        Case::refused("a page that is none", 404, NO_ROUTE, bare("GET /favicon.ico").into()),
    ]
}

fn heads() -> Vec<Case> {
    let start = "POST /webhooks/monday/demo-crm HTTP/1.1\r\nhost: x\r\n";
    let refused = |name, head: &str| {
        let request = format!("{start}{head}\r\n\r\n").into_bytes();
        Case::refused(name, 400, MALFORMED, request)
    };
    let raw = |name, bytes: &[u8]| Case::refused(name, 400, MALFORMED, bytes.to_vec());
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let large = |name, head: String| {
        Case::refused(name, 431, TOO_LARGE, format!("{start}{head}\r\n\r\n").into_bytes())
    };
    let old = format!(
        "POST /webhooks/monday/demo-crm HTTP/1.0\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n",
        jwt(),
        event("an old client").len()
    );
    vec![
        Case::stored("an old client", [old.as_bytes(), &event("an old client")].concat()),
        refused("a header without a colon", "nonsense"),
        refused("a header with a space in its name", "content length: 2"),
        refused("a zero byte in a header", "x: a\0b"),
        refused("a length that is no number", "content-length: two"),
        refused("a negative length", "content-length: -1"),
        refused("two different lengths", "content-length: 2\r\ncontent-length: 3"),
        refused("a length beyond all numbers", "content-length: 99999999999999999999999"),
        raw("rubbish", b"\x00\x01\x02 rubbish\r\n\r\n"),
        raw("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
        raw("a version of the future", b"GET / HTTP/9.9\r\n\r\n"),
        large("200 headers", many),
        large("100 KB of one header", format!("x: {}", "y".repeat(100_000))),
        large("100 KB of cookies", format!("cookie: {}", "a=b; ".repeat(20_000))),
    ]
}

fn trickles() -> Vec<Case> {
    let slow =
        |name, parts: Vec<Vec<u8>>| Case::refused(name, 408, TOO_SLOW, Vec::new()).in_parts(parts);
    let letters = b"POST /webhooks".iter().map(|letter| vec![*letter]).take(7).collect();
    vec![
        slow(
            "a head that stops",
            vec![b"POST /webhooks/monday/demo-crm HTTP/1.1\r\nhost:".to_vec()],
        ),
        slow("a head that trickles", letters),
    ]
}
