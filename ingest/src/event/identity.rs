//! What makes two deliveries the same event (spec.md §1).

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::{Number, value::RawValue};
use sha2::{Digest, Sha256};

use super::fields::Fields;

/// An id is the value of a header: beyond this, or with anything but printable ASCII in it, the digest of
/// the event takes its place.
const MAX_ID_BYTES: usize = 128;

/// `{subscriptionId}:{triggerUuid}`; where either is missing, the digest of the event itself.
pub(super) fn of(event: &RawValue, fields: &Fields<'_>) -> String {
    let usable = |id: &Cow<'_, str>| {
        (1..=MAX_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let subscription_id = fields.subscription_id().filter(usable);
    let trigger_uuid = fields.trigger_uuid().filter(usable);
    match (subscription_id, trigger_uuid) {
        (Some(subscription_id), Some(trigger_uuid)) => [subscription_id, trigger_uuid].join(":"),
        _ => digest(event),
    }
}

/// Lower-case hex SHA-256 of the event without what differs between two attempts to deliver it, its keys
/// sorted, no white space.
fn digest(event: &RawValue) -> String {
    let mut text = String::with_capacity(event.get().len());
    write_canonical(event.get(), &["triggerTime", "isRetry"], &mut text);
    hex::encode(Sha256::digest(text))
}

/// Walks through the text itself: a tree of `serde_json::Value` has keys that it takes for its own.
fn write_canonical(json: &str, without: &[&str], out: &mut String) {
    match json.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> =
                serde_json::from_str(json).unwrap_or_default();
            let members = members.into_iter().filter(|(key, _)| !without.contains(&key.as_str()));
            out.push('{');
            for (index, (key, value)) in members.enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_json(&key, out);
                out.push(':');
                write_canonical(value.get(), &[], out);
            }
            out.push('}');
        }
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
            out.push('[');
            for (index, value) in elements.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(value.get(), &[], out);
            }
            out.push(']');
        }
        Some(b'"') => match serde_json::from_str::<String>(json) {
            Ok(text) => push_json(&text, out),
            Err(_) => out.push_str(json),
        },
        Some(b'-' | b'0'..=b'9') => match serde_json::from_str::<Number>(json) {
            Ok(number) => push_json(&number, out),
            Err(_) => out.push_str(json),
        },
        _ => out.push_str(json),
    }
}

fn push_json(value: &impl serde::Serialize, out: &mut String) {
    // Texts and numbers can always be written.
    out.push_str(&serde_json::to_string(value).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn canonical(json: &str) -> String {
        let mut out = String::new();
        write_canonical(json, &["triggerTime", "isRetry"], &mut out);
        out
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("\\PC{0,6}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn order_and_white_space_do_not_matter(value in any_json()) {
            let compact = serde_json::to_string(&value).unwrap();
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(canonical(&pretty), canonical(&compact));
            prop_assert_eq!(canonical(&compact), compact);
        }
    }

    #[test]
    fn attempts_to_deliver_are_one_event_and_different_events_are_two() {
        let first =
            r#"{"type":"x","triggerTime":"1","isRetry":false,"v":{"isRetry":1, "b":2,"a":1.50}}"#;
        let retry = r#"{ "v":{"a":1.50,"isRetry":1,"b":2},"isRetry":true,"triggerTime":"2","type":"\u0078"}"#;
        assert_eq!(canonical(first), r#"{"type":"x","v":{"a":1.50,"b":2,"isRetry":1}}"#);
        assert_eq!(canonical(first), canonical(retry));
        assert_ne!(canonical(first), canonical(&first.replace("1.50", "1.51")));
    }

    #[test]
    fn keys_that_the_json_library_takes_for_its_own_are_keys() {
        let text =
            json!({ "a": 1 }).to_string().replace("\"a\"", "\"$serde_json::private::Number\"");
        assert_eq!(canonical(&text), text);
    }
}
