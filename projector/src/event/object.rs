//! The event's object, whatever its keys are called.

use serde_json::{Map, Value};

/// serde_json passes numbers and raw values on in objects with keys of this name. An event that has such a
/// key of its own would be taken for one of them, or could not be read at all.
const PRIVATE: &str = "$serde_json::private::";

pub(crate) fn parse(raw: &str) -> Option<Map<String, Value>> {
    let plain = if raw.contains(PRIVATE) { None } else { serde_json::from_str(raw).ok() };
    // The name may be escaped.
    plain.or_else(|| serde_json::from_str(&without_private_keys(raw)).ok())
}

/// The same text with another name for such keys, which mean nothing to us under any.
fn without_private_keys(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('"') {
        let (before, from) = rest.split_at(at);
        let (string, after) = from.split_at(length(from));
        let is_key = after.trim_start().starts_with(':');
        let private = serde_json::from_str(string).is_ok_and(|s: String| s.starts_with(PRIVATE));
        text.push_str(before);
        text.push_str(if is_key && private { "\"$\"" } else { string });
        rest = after;
    }
    text.push_str(rest);
    text
}

/// The length of the JSON string that this begins with, quotes included.
fn length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_read_whatever_its_keys_are_called() {
        for key in ["Number", "RawValue", "other"] {
            for (value, kept) in [("\"x\"", json!("x")), ("\"5\"", json!("5")), ("7.10", json!(7))]
            {
                let raw = format!(
                    r#"{{"a": "\"$serde_json::private::{key}", "n": 1.50, "v": {{"$serde_json::private::{key}" : {value}}}}}"#
                );
                let event = parse(&raw).unwrap_or_else(|| panic!("{raw}"));
                assert_eq!(event["a"], format!("\"$serde_json::private::{key}"));
                assert_eq!(event["n"].to_string(), "1.50");
                let kept = if value == "7.10" { "7.10".to_owned() } else { kept.to_string() };
                assert_eq!(event["v"]["$"].to_string(), kept);
            }
        }
        let escaped = r#"{"\u0024serde_json::private::Number": "x", "b": 1}"#;
        assert_eq!(parse(escaped).unwrap()["b"], 1);
        let value = r#"{"name": "$serde_json::private::Number"}"#;
        assert_eq!(parse(value).unwrap()["name"], "$serde_json::private::Number");
    }

    #[test]
    fn what_is_no_object_is_none() {
        for raw in ["5", "[]", "null", "\"$serde_json::private::Number\""] {
            assert!(parse(raw).is_none(), "{raw}");
        }
    }
}
