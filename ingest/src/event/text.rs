//! From bytes to the text of one event that every reader of the stream can parse.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::answer::Refusal;

/// Real webhooks nest some ten deep; readers of the stream recurse, so there is a bound.
const MAX_DEPTH: usize = 64;

/// The body as text that every reader of the stream can decode. What is no Unicode, as bytes or as an
/// escaped half of a surrogate pair, becomes U+FFFD; everything else stays as it is.
pub fn readable(body: &[u8]) -> Result<Cow<'_, str>, Refusal> {
    let text = match str::from_utf8(body) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(body),
    };
    // To count all brackets is fast, and there are few of them.
    let brackets = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if brackets > MAX_DEPTH && depth(&text) > MAX_DEPTH {
        return Err(Refusal::TooDeep);
    }
    Ok(match text {
        Cow::Borrowed(text) => replace_lone_surrogates(text),
        Cow::Owned(text) => Cow::Owned(replace_lone_surrogates(&text).into_owned()),
    })
}

/// The raw `event` of a body; of two, the last.
pub(super) fn event_of(body: &str) -> Result<&RawValue, Refusal> {
    let body = body.trim_start_matches('\u{feff}');
    match serde_json::from_str::<Body<'_>>(body) {
        Ok(Body(Some(event))) if event.get().starts_with('{') => Ok(event),
        Ok(Body(Some(_))) => Err(Refusal::NotAnEvent("`event` is no object")),
        Ok(Body(None)) => Err(Refusal::NotAnEvent("there is no `event`")),
        Err(error) if error.is_data() => Err(Refusal::NotAnEvent("the body is no object")),
        Err(_) => Err(Refusal::NotJson),
    }
}

struct Body<'b>(Option<&'b RawValue>);

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Event,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an `event`")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut event = None;
        while let Some(key) = map.next_key()? {
            match key {
                Key::Event => event = Some(map.next_value()?),
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Body(event))
    }
}

/// How deep the brackets outside of texts go.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A text that was cut in the middle of an emoji arrives as `\ud83d`, which JSON allows and no decoder
/// takes. Most bodies have no such escape and are not copied.
fn replace_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut kept = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += found;
        match surrogate_at(json, at) {
            None => at += 2,
            Some(0xD800..=0xDBFF) if matches!(surrogate_at(json, at + 6), Some(0xDC00..)) => {
                at += 12
            }
            Some(_) => {
                kept.push_str(json.get(copied..at).unwrap_or_default());
                kept.push_str("\\ufffd");
                at += 6;
                copied = at;
            }
        }
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    kept.push_str(json.get(copied..).unwrap_or_default());
    Cow::Owned(kept)
}

/// The half of a surrogate pair that is escaped here.
fn surrogate_at(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    let unit = u16::from_str_radix(digits, 16).ok()?;
    (0xD800..=0xDFFF).contains(&unit).then_some(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn depth_counts_brackets_but_not_those_in_texts() {
        assert_eq!(depth(r#"{"a":[{"b":"[[[[\"[[{{"}],"c":{}}"#), 3);
        assert_eq!(depth("}}]]{"), 1);
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(readable(deep(MAX_DEPTH).as_bytes()).is_ok());
        assert_eq!(readable(deep(MAX_DEPTH + 1).as_bytes()), Err(Refusal::TooDeep));
        assert_eq!(readable("[".repeat(900_000).as_bytes()), Err(Refusal::TooDeep));
    }

    #[test]
    fn half_an_emoji_becomes_the_replacement_character() {
        for (given, expected) in [
            (r#""\ud83d""#, r#""\ufffd""#),
            (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
            (r#""\ude00\ud83d x""#, r#""\ufffd\ufffd x""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\\ud83d \" \u05d0""#, r#""\\ud83d \" \u05d0""#),
            (r#""\uD8"#, r#""\uD8"#),
        ] {
            assert_eq!(replace_lone_surrogates(given), expected, "{given}");
        }
        assert_eq!(readable(b"\"\xffx\""), Ok("\"\u{fffd}x\"".into()));
    }

    #[test]
    fn the_event_is_the_last_one_and_must_be_an_object() {
        let event = |body| event_of(body).map(RawValue::get);
        assert_eq!(
            event(r#"{"event":1,"x":{"event":2},"event": {"a" : 1 } }"#),
            Ok(r#"{"a" : 1 }"#)
        );
        assert_eq!(event("\u{feff}{\"event\":{}}"), Ok("{}"));
        for body in ["[]", "1", "null", "\"x\"", "{}", r#"{"event":[]}"#, r#"{"event":null}"#] {
            assert!(matches!(event(body), Err(Refusal::NotAnEvent(_))), "{body}");
        }
        for body in
            ["", " ", "{", "nope", r#"{"event":{}"#, r#"{"event":{}} x"#, r#"{"event":{,}}"#]
        {
            assert_eq!(event(body), Err(Refusal::NotJson), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = readable(&body) {
                let _ = event_of(&text);
            }
        }

        #[test]
        fn what_json_can_write_is_not_touched(text in "\\PC*") {
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(matches!(replace_lone_surrogates(&json), Cow::Borrowed(_)));
        }

        #[test]
        fn whatever_is_escaped_can_be_decoded_afterwards(units in prop::collection::vec(any::<u16>(), 0..20)) {
            let escaped: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let json = format!("\"{escaped}\"");
            prop_assert!(serde_json::from_str::<String>(&replace_lone_surrogates(&json)).is_ok());
        }
    }
}
