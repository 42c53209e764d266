//! What every request gets: an id, a trace, a deadline, figures, and a problem in its one form.

use std::{any::Any, time::Duration};

use axum::{
    body::Body,
    extract::MatchedPath,
    http::{HeaderMap, HeaderName, HeaderValue, Request, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use leadpulse_service::trace::{TRACEPARENT, TraceContext};
use tokio::time::{Instant, timeout};
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use crate::{ops::instance, problem::Problem, value::milliseconds};

/// No request may take longer to begin its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// But for a body that has to come first, and may be large.
const UPLOAD: Duration = Duration::from_secs(600);
const REQUEST_ID: &str = "x-request-id";

pub(super) async fn observe(request: Request<Body>, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let traceparent = request.headers().get(TRACEPARENT).and_then(|value| value.to_str().ok());
    let trace = TraceContext::continue_or_start(traceparent);
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let span = info_span!("request", request_id = %id, trace_id = %trace.trace_id_hex(), route);
    let deadline = if route == instance::IMPORT { UPLOAD } else { ANSWER };
    let answered = async {
        let answer = timeout(deadline, next.run(request)).await;
        answer.unwrap_or_else(|_| Problem::Unavailable.into_response())
    };
    let mut response = tell(answered.instrument(span.clone()).await, &id);
    let took = started.elapsed();
    let status = response.status();
    metrics::histogram!(
        "query_api_http_request_seconds", "route" => route, "status" => status.as_str().to_owned()
    )
    .record(took.as_secs_f64());
    span.in_scope(|| {
        debug!(status = status.as_u16(), duration_ms = took.as_secs_f64() * 1e3, "answered")
    });
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str, add: bool| {
        if let Ok(value) = HeaderValue::from_str(value) {
            let name = HeaderName::from_static(name);
            if add {
                headers.append(name, value)
            } else {
                headers.insert(name, value).is_some()
            };
        }
    };
    set(REQUEST_ID, &id, false);
    set(TRACEPARENT, &trace.to_string(), false);
    set("server-timing", &format!("total;dur={}", milliseconds(took)), true);
    set("x-content-type-options", "nosniff", false);
    response
}

pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a request panicked");
    Problem::Internal.into_response()
}

/// The client's id if it is one to be repeated in a header and a log, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    given.filter(plain).map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// Gives a problem its body.
fn tell(mut response: Response, id: &str) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let body = problem.body(id).to_string();
    let (mut parts, _) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let form = HeaderValue::from_static("application/problem+json");
    parts.headers.insert(header::CONTENT_TYPE, form);
    Response::from_parts(parts, Body::from(body))
}
