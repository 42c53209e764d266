//! The names of headers that the library of HTTP does not know, made once; and values that are another one in
//! each answer.

use std::fmt::{Display, Write};

use axum::http::{HeaderName, HeaderValue};
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

/// A value as it is written. It is written in a place of its own and then copied: a text that has spare
/// memory costs a value a second allocation.
pub(crate) fn header_value(text: impl Display) -> Option<HeaderValue> {
    let mut place = Place { bytes: [0; PLACE], used: 0 };
    match write!(place, "{text}") {
        Ok(()) => HeaderValue::from_bytes(&place.bytes[..place.used]).ok(),
        Err(_) => HeaderValue::try_from(text.to_string()).ok(),
    }
}

/// Longer values are written as any other text.
const PLACE: usize = 128;

struct Place {
    bytes: [u8; PLACE],
    used: usize,
}

impl Write for Place {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.used + text.len();
        let room = self.bytes.get_mut(self.used..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_what_is_written_however_long_it_is() {
        for length in [0, 1, PLACE - 1, PLACE, PLACE + 1, 5 * PLACE] {
            let text = "x".repeat(length);
            assert_eq!(
                header_value(format_args!("{}{}", text, length)).unwrap(),
                format!("{text}{length}")
            );
        }
        assert_eq!(header_value("a\nb"), None);
    }
}
