//! Scalars in the many shapes in which monday.com sends them.

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde_json::Value;

/// A 64-bit id, as a number or as a text.
pub(super) fn integer(value: Option<&Value>) -> Option<i64> {
    match value? {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A text that Postgres can hold: U+0000 is dropped. None for what is no text.
pub(super) fn plain(value: Option<&Value>) -> Option<String> {
    let text = value?.as_str()?;
    Some(if text.contains('\0') { text.replace('\0', "") } else { text.to_owned() })
}

/// A text with something in it.
pub(super) fn filled(value: Option<&Value>) -> Option<String> {
    plain(value).filter(|text| !text.is_empty())
}

/// A text without white space around it, with something in it.
pub(super) fn trimmed(value: Option<&Value>) -> Option<String> {
    plain(value).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// An exact decimal of at most 28 digits, as a number or as a text; it never passes through a float.
pub(super) fn decimal(value: &Value) -> Option<Decimal> {
    match value {
        Value::Number(number) => normalised_decimal(&number.to_string()),
        Value::String(text) => normalised_decimal(text),
        _ => None,
    }
}

/// One value, one spelling: `12500.50` and `1.25005e4` are the same amount.
pub fn normalised_decimal(text: &str) -> Option<Decimal> {
    let text = text.trim();
    let exact = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text).ok()?
    } else {
        Decimal::from_str_exact(text).ok()?
    };
    Some(exact.normalize())
}

/// A calendar date, `2026-03-05`.
pub(super) fn date(value: Option<&Value>) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(value?.as_str()?.trim(), "%Y-%m-%d").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact_and_have_one_spelling() {
        for (text, expected) in [
            ("12500.50", "12500.5"),
            ("1.25005e4", "12500.5"),
            (" 7 ", "7"),
            ("-0.10", "-0.1"),
            ("0.1", "0.1"),
        ] {
            assert_eq!(normalised_decimal(text).unwrap().to_string(), expected);
        }
        for text in
            ["", "abc", "1,200", "$5", "1e999", "NaN", "12345678901234567890123456789012345"]
        {
            assert_eq!(normalised_decimal(text), None, "{text}");
        }
    }
}
