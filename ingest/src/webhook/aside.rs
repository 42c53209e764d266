//! What is no webhook: a request for no page and no source, a page asked in a wrong way, and bytes that
//! are no request. It is refused, counted and kept as webhooks are.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use leadpulse_service::{
    http::BadHead,
    trace::{TRACEPARENT, TraceContext},
};
use percent_encoding::percent_decode_str;
use tracing::info;

use super::{next_beat, text};
use crate::{
    answer::Refusal,
    http::{Door, body},
    quarantine::Refused,
    source,
    verify::Proof,
};

pub(crate) async fn no_route(door: Arc<Door>, request: Request) -> Response {
    let read_at = refuse(&door, Refusal::NoRoute, request).await;
    next_beat(read_at).await;
    Refusal::NoRoute.into_response()
}

/// The router adds what is allowed.
pub(crate) async fn wrong_method(door: Arc<Door>, request: Request) -> StatusCode {
    refuse(&door, Refusal::Method, request).await;
    StatusCode::METHOD_NOT_ALLOWED
}

pub(crate) async fn bad_head(door: Arc<Door>, head: BadHead) {
    keep(&door, Refusal::Head(head), "", HeaderMap::new()).await;
}

/// The time when all of the request was there.
async fn refuse(door: &Door, refusal: Refusal, request: Request) -> Instant {
    let (parts, body) = request.into_parts();
    body::discard(body).await;
    let read_at = Instant::now();
    let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy();
    let shown = door.secrets.borrow().sources.shown(&path);
    keep(door, refusal, &shown, parts.headers).await;
    read_at
}

/// `path` as it may be shown: whoever has spelt an address wrongly may have put a token there.
async fn keep(door: &Door, refusal: Refusal, path: &str, headers: HeaderMap) {
    let trace = TraceContext::continue_or_start(text(&headers, TRACEPARENT));
    let source = door.secrets.borrow().sources.stranger();
    let proof = Proof::new(headers, None);
    let refused = Refused {
        refusal,
        source: &source,
        key: path,
        stranger: true,
        proof: &proof,
        body: Bytes::new(),
        trace: &trace,
    };
    door.quarantine.keep(refused).await;
    let reason = refusal.reason();
    source::count(&source.key, "refused", reason).increment(1);
    info!(path, reason, trace_id = trace.trace_id_hex(), "request refused: {reason}");
}
