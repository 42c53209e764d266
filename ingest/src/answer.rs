//! Everything that can be said to a webhook, and the one table that turns it into HTTP.
//!
//! monday.com retries on 5xx, may take a 4xx for an end, and switches an automation off when a body has
//! a `severityCode`: so what can be tried again is a 503 with an empty body, and 4xx is only for what
//! can never be accepted (monday.md, Delivery).

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use leadpulse_service::http::BadHead;
use serde_json::json;

use crate::{publish::Stored, verify::Rejected};

/// Where in the stream the event stands.
pub const SEQ: HeaderName = HeaderName::from_static("leadpulse-seq");
/// `true` if the stream had the event before.
pub const DUPLICATE: HeaderName = HeaderName::from_static("leadpulse-duplicate");

/// Why a webhook was not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No request could be made of it; whoever sent it was told so before anybody here knew.
    #[error("the head is no HTTP, or too large, or came too slowly")]
    Head(BadHead),
    #[error("no such page")]
    NoRoute,
    #[error("no such source")]
    UnknownSource,
    #[error("not verified: {0}")]
    Unauthorized(Rejected),
    #[error("a webhook is a POST")]
    Method,
    #[error("the body is larger than 1 MiB")]
    BodyTooLarge,
    #[error("the event is larger than a message of the stream")]
    RecordTooLarge,
    #[error("the body did not come in time")]
    BodyTooSlow,
    #[error("the body broke off")]
    BodyBroken,
    #[error("the content encoding is not supported; send the body as it is")]
    Encoding,
    #[error("the body is not JSON")]
    NotJson,
    #[error("the JSON is nested too deeply")]
    TooDeep,
    #[error("not an event: {0}")]
    NotAnEvent(&'static str),
    #[error("more webhooks a second than the source may send")]
    TooMany,
    #[error("too many webhooks in flight")]
    Overloaded,
    #[error("the bodies of other webhooks take all the memory that there is for them")]
    NoRoom,
    #[error("the stream has not acknowledged it: {0}")]
    NotStored(&'static str),
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Head(head) => head.status(),
            Self::NoRoute | Self::UnknownSource => StatusCode::NOT_FOUND,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge | Self::RecordTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Encoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyBroken | Self::NotJson | Self::TooDeep | Self::NotAnEvent(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Self::Overloaded | Self::NoRoom | Self::NotStored(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The reason as a label of a metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Head(head) => head.reason(),
            Self::NoRoute => "no_route",
            Self::UnknownSource => "unknown_source",
            Self::Unauthorized(rejected) => rejected.reason(),
            Self::Method => "wrong_method",
            Self::BodyTooLarge => "body_too_large",
            Self::RecordTooLarge => "record_too_large",
            Self::BodyTooSlow => "body_too_slow",
            Self::BodyBroken => "body_broken",
            Self::Encoding => "encoding",
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::NotAnEvent(_) => "not_an_event",
            Self::TooMany => "too_many",
            Self::Overloaded => "overloaded",
            Self::NoRoom => "no_room",
            Self::NotStored(why) => why,
        }
    }

    /// Its sender has not proved to be anybody.
    pub fn is_of_nobody_known(self) -> bool {
        matches!(self, Self::UnknownSource | Self::Unauthorized(_))
    }

    /// Was it refused before its body was read?
    pub fn body_is_missing(self) -> bool {
        matches!(
            self,
            Self::Head(_)
                | Self::NoRoute
                | Self::Method
                | Self::BodyTooLarge
                | Self::BodyTooSlow
                | Self::BodyBroken
                | Self::Encoding
                | Self::NoRoom
        )
    }

    /// Only who is known, or has sent what nobody can read, is told what is wrong.
    fn explained(self) -> bool {
        !matches!(
            self,
            Self::NoRoute
                | Self::UnknownSource
                | Self::Unauthorized(_)
                | Self::TooMany
                | Self::Overloaded
                | Self::NoRoom
                | Self::NotStored(_)
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = if self.explained() {
            (status, Json(json!({ "error": self.to_string() }))).into_response()
        } else {
            status.into_response()
        };
        let headers = response.headers_mut();
        let retry_after = match status {
            StatusCode::SERVICE_UNAVAILABLE => Some("5"),
            StatusCode::TOO_MANY_REQUESTS => Some("1"),
            _ => None,
        };
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        if self.body_is_missing() {
            // What is left of the body would be read as the next request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl IntoResponse for Stored {
    fn into_response(self) -> Response {
        let mut response = ([(header::CONTENT_TYPE, "application/json")], "{}").into_response();
        response.headers_mut().insert(SEQ, self.seq.into());
        if self.duplicate {
            response.headers_mut().insert(DUPLICATE, HeaderValue::from_static("true"));
        }
        response
    }
}
