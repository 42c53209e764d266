//! What every request gets: an id, a trace, a deadline, figures, and a problem in its one form.

use std::{
    any::Any,
    sync::OnceLock,
    time::{Duration, Instant},
};

use axum::{
    body::Body,
    extract::MatchedPath,
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use leadpulse_service::trace::TraceContext;
use metrics::Histogram;
use tokio::time::timeout;
use tracing::{Instrument, debug, info_span};
use uuid::Uuid;

use crate::{
    header::{REQUEST_ID, SERVER_TIMING, TRACEPARENT, header_value},
    ops::instance,
    problem::Problem,
    value::Milliseconds,
};

/// No request may take longer to begin its answer.
const ANSWER: Duration = Duration::from_secs(10);
/// But for a body that has to come first, and may be large.
const UPLOAD: Duration = Duration::from_secs(600);

pub(super) async fn observe(request: Request<Body>, next: Next) -> Response {
    let observed = Observed::of(request.headers(), Instant::now());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.map_or_else(|| "none".to_owned(), |route| route.as_str().to_owned());
    let trace_id = observed.trace.trace_id_hex();
    let span = info_span!("request", request_id = %observed.id, trace_id, route);
    let deadline = if route == instance::IMPORT { UPLOAD } else { ANSWER };
    let answered = async {
        let answer = timeout(deadline, next.run(request)).await;
        answer.unwrap_or_else(|_| Problem::Unavailable.into_response())
    };
    let response = answered.instrument(span.clone()).await;
    span.in_scope(|| observed.finish(response, &Meter::of(route)))
}

/// One request from its first moment: what it is called in logs, and in its answer.
pub(crate) struct Observed {
    began: Instant,
    id: String,
    trace: TraceContext,
}

impl Observed {
    pub(crate) fn of(headers: &HeaderMap, began: Instant) -> Self {
        let traceparent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        Self { began, id: request_id(headers), trace: TraceContext::continue_or_start(traceparent) }
    }

    /// What every answer has, and what is counted and logged of it.
    pub(crate) fn finish(self, response: Response, meter: &Meter) -> Response {
        let mut response = tell(response, &self.id);
        let took = self.began.elapsed();
        let status = response.status();
        meter.record(status, took);
        debug!(
            request_id = self.id,
            status = status.as_u16(),
            duration_ms = took.as_secs_f64() * 1e3,
            "answered"
        );
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let total = Milliseconds(took);
        let timing = match headers.get(SERVER_TIMING).and_then(|part| part.to_str().ok()) {
            Some(part) => header_value(format_args!("{part}, total;dur={total}")),
            None => header_value(format_args!("total;dur={total}")),
        };
        for (name, value) in [
            (SERVER_TIMING, timing),
            (REQUEST_ID, header_value(&self.id)),
            (TRACEPARENT, header_value(self.trace)),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        response
    }
}

/// How long the answers of one route took, by their status; looked up once for the frequent ones.
pub(crate) struct Meter {
    route: String,
    ok: OnceLock<Histogram>,
    known: OnceLock<Histogram>,
}

impl Meter {
    pub(crate) fn of(route: String) -> Self {
        Self { route, ok: OnceLock::new(), known: OnceLock::new() }
    }

    fn record(&self, status: StatusCode, took: Duration) {
        let look_up = || {
            metrics::histogram!(
                "query_api_http_request_seconds",
                "route" => self.route.clone(), "status" => status.as_str().to_owned()
            )
        };
        match status {
            StatusCode::OK => self.ok.get_or_init(look_up).record(took),
            StatusCode::NOT_MODIFIED => self.known.get_or_init(look_up).record(took),
            _ => look_up().record(took),
        }
    }
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
