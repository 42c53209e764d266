//! monday.com's handshake: `{"challenge":"…"}`, to be answered with the same JSON. Whether it is signed is
//! unknown, so it is answered before any verification, and therefore only if it is small and nothing else.

use serde::{Deserialize, Serialize};

/// Challenges are some 40 characters; nothing larger is sent back to a stranger.
const MAX_BYTES: usize = 4 * 1024;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Challenge {
    challenge: String,
}

impl Challenge {
    pub(super) fn of(body: &[u8]) -> Option<Self> {
        if body.len() > MAX_BYTES {
            return None;
        }
        // Nearly every body is an event, and is not read to its end for this. (A derived reader would
        // also take an array of one text.)
        let first_key = body.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
        first_key.starts_with(b"\"challenge\"").then(|| serde_json::from_slice(body).ok())?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_challenge_alone_is_one() {
        let challenge = Challenge::of(
            br#" {"challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"} "#,
        );
        assert_eq!(
            serde_json::to_string(&challenge).unwrap(),
            r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#
        );
        let long = format!(r#"{{"challenge":"{}"}}"#, "x".repeat(MAX_BYTES));
        for body in [
            r#"{"challenge":1}"#,
            r#"{"challenge":null}"#,
            r#"{"challenge":{"a":"b"}}"#,
            r#"{"challenge":"x","event":{}}"#,
            r#"{"challenge":"x","challenge":"y"}"#,
            r#"["x"]"#,
            r#"{}"#,
            long.as_str(),
        ] {
            assert_eq!(Challenge::of(body.as_bytes()), None, "{body}");
        }
    }
}
