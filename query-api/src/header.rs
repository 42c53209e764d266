//! The names of headers that the standard library of HTTP does not know, made once.

use axum::http::HeaderName;
use leadpulse_service::trace;

/// Everything up to this sequence is in the answer.
pub(crate) const SEQ: HeaderName = HeaderName::from_static("leadpulse-seq");
/// The time of the read.
pub(crate) const AS_OF: HeaderName = HeaderName::from_static("leadpulse-as-of");
/// RFC 9211.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
/// draft-ietf-httpapi-ratelimit-headers, as is the next.
pub(crate) const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
pub(crate) const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static(trace::TRACEPARENT);
