//! What can go wrong with a request, and the one table that says how it is told (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{auth::Scope, limits::Left};

/// One parameter and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) parameter: String,
    pub(crate) detail: String,
}

#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Problem {
    #[error("the request has invalid parameters")]
    Invalid(Vec<Fault>),
    #[error("a valid API key is needed: `Authorization: Bearer lp_…`")]
    Unauthorized,
    #[error("the API key lacks the scope `{}`", .0.as_str())]
    Forbidden(Scope),
    #[error("a key of the whole instance is good for `/ops/instance` alone")]
    OfNoOrg,
    #[error("there is no such thing in this org")]
    NotFound,
    #[error("this address knows only {0}")]
    MethodNotAllowed(&'static str),
    /// An operator's wish that can't be granted as things are; why.
    #[error("{0}")]
    Refused(String),
    #[error("the read models have applied {applied}, not yet {asked}")]
    Behind { asked: i64, applied: i64 },
    #[error("the limit of this API key or of its org is reached")]
    TooMany { retry_after_seconds: u64, left: Left },
    #[error("the request can't be answered in time; try again")]
    Unavailable,
    #[error("the request failed")]
    Internal,
}

impl Problem {
    pub(crate) fn invalid(parameter: &str, detail: impl Into<String>) -> Self {
        Self::Invalid(vec![Fault { parameter: parameter.to_owned(), detail: detail.into() }])
    }

    /// So many seconds too early.
    pub(crate) fn too_many(wait_seconds: f64, left: Left) -> Self {
        metrics::counter!("query_api_rate_limited_total").increment(1);
        let wait = std::time::Duration::from_secs_f64(wait_seconds);
        Self::TooMany { retry_after_seconds: wait.as_secs() + 1, left }
    }

    fn table(&self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Invalid(_) => {
                (StatusCode::BAD_REQUEST, "invalid-parameters", "Invalid parameters")
            }
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized"),
            Self::Forbidden(_) | Self::OfNoOrg => {
                (StatusCode::FORBIDDEN, "missing-scope", "Missing scope")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "Not found"),
            Self::Refused(_) => (StatusCode::CONFLICT, "refused", "Refused"),
            Self::MethodNotAllowed(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed")
            }
            Self::Behind { .. } => {
                (StatusCode::SERVICE_UNAVAILABLE, "not-yet-applied", "Not yet applied")
            }
            Self::TooMany { .. } => {
                (StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests")
            }
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error"),
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooMany { retry_after_seconds, .. } => Some(*retry_after_seconds),
            Self::Behind { .. } | Self::Unavailable => Some(1),
            _ => None,
        }
    }

    pub(crate) fn body(&self, request_id: &str) -> Value {
        let (status, name, title) = self.table();
        let mut body = json!({
            "type": format!("urn:leadpulse:problem:{name}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.to_string(),
            "request_id": request_id,
        });
        if let Self::Invalid(faults) = self {
            let errors = faults
                .iter()
                .map(|fault| json!({ "parameter": fault.parameter, "detail": fault.detail }));
            body["errors"] = errors.collect();
        }
        if let Self::Behind { asked, applied } = self {
            body["min_seq"] = json!(asked);
            body["applied_seq"] = json!(applied);
        }
        body
    }
}

/// The body is written by the outermost layer: only there the request has its id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.table().0.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        match &self {
            Self::TooMany { left, .. } => left.tell(headers),
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::MethodNotAllowed(methods) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(methods));
            }
            _ => {}
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<&sqlx::Error> for Problem {
    fn from(error: &sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code());
        let known = |code: &str| {
            // Time-outs and cancellation, overload, connection lost, a schema that is not there yet.
            ["57", "53", "08", "40"].iter().any(|class| code.starts_with(class)) || code == "42P01"
        };
        match error {
            sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::Io(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => Self::Unavailable,
            _ if code.is_some_and(|code| known(&code)) => Self::Unavailable,
            _ => {
                tracing::error!(%error, "query failed");
                Self::Internal
            }
        }
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        Self::from(&error)
    }
}
