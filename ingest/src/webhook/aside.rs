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
use tracing::debug;

use super::{next_beat, text};
use crate::{
    answer::Refusal,
    http::{Door, body},
    quarantine::Refused,
    source,
    verify::Proof,
};

/// Nothing of the address is shown: whoever has spelt it wrongly may have put a token anywhere in it.
pub(crate) async fn no_route(door: Arc<Door>, request: Request) -> Response {
    let read_at = refuse(&door, Refusal::NoRoute, "", request).await;
    next_beat(read_at).await;
    Refusal::NoRoute.into_response()
}

/// The router adds what is allowed.
pub(crate) async fn wrong_method(door: Arc<Door>, request: Request) -> StatusCode {
    let page = request.uri().path().to_owned();
    refuse(&door, Refusal::Method, &page, request).await;
    StatusCode::METHOD_NOT_ALLOWED
}

pub(crate) async fn bad_head(door: Arc<Door>, head: BadHead) {
    keep(&door, Refusal::Head(head), "", HeaderMap::new()).await;
}

/// The time when all of the request was there.
async fn refuse(door: &Door, refusal: Refusal, page: &str, request: Request) -> Instant {
    let (parts, body) = request.into_parts();
    body::discard(body).await;
    let read_at = Instant::now();
    keep(door, refusal, page, parts.headers).await;
    read_at
}

async fn keep(door: &Door, refusal: Refusal, page: &str, headers: HeaderMap) {
    let trace = TraceContext::continue_or_start(text(&headers, TRACEPARENT));
    let source = door.secrets.borrow().sources.stranger();
    let proof = Proof::new(headers, None);
    let refused = Refused {
        refusal,
        source: &source,
        key: page,
        stranger: true,
        proof: &proof,
        body: Bytes::new(),
        trace: &trace,
    };
    door.quarantine.keep(refused).await;
    let reason = refusal.reason();
    source::count(&source.key, "refused", reason).increment(1);
    // Anybody can send as many as they like: the metrics have their number.
    debug!(page, reason, trace_id = trace.trace_id_hex(), "request refused: {reason}");
}
