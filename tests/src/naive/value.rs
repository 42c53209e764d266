//! What a column was written with. monday.com has two vocabularies, the webhook's and the API's; empty
//! comes in many forms, and all of them are a write of null.

use std::str::FromStr;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde_json::Value;

/// A status label. `id` is the label's index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) id: Option<i64>,
    pub(super) text: Option<String>,
}

/// An id: a number here, a string in the API.
pub(super) fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.to_string().parse().ok(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A text that says something. U+0000 can't be stored and is dropped.
pub(super) fn text(value: &Value) -> Option<String> {
    let text = value.as_str()?.replace('\0', "");
    (!text.is_empty()).then_some(text)
}

fn trimmed(value: &Value) -> Option<String> {
    let text = text(value)?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

/// The value of a column in a webhook: `value` of a change, or an entry of `columnValues`.
pub(super) mod webhook {
    use super::{Decimal, NaiveDate, Status, Value, integer, text, trimmed};

    pub(in super::super) fn status(value: &Value) -> Status {
        let label = &value["label"];
        match text(&label["text"]) {
            Some(text) => Status { id: integer(&label["index"]), text: Some(text) },
            None => Status::default(),
        }
    }

    pub(in super::super) fn owner(value: &Value) -> Option<i64> {
        super::first_person(&value["personsAndTeams"])
    }

    pub(in super::super) fn amount(value: &Value) -> Option<Decimal> {
        super::decimal(&value["value"])
    }

    pub(in super::super) fn industry(value: &Value) -> Option<String> {
        trimmed(&value["label"]["text"])
            .or_else(|| trimmed(&value["chosenValues"][0]["name"]))
            .or_else(|| trimmed(&value["value"]))
            .or_else(|| trimmed(&value["text"]))
    }

    pub(in super::super) fn next_call(value: &Value) -> Option<NaiveDate> {
        super::date(&value["date"])
    }
}

/// An entry of `column_values`, as the API and an `item_snapshot` have it.
pub(super) mod api {
    use super::{Decimal, NaiveDate, Status, Value, integer, text, trimmed};

    pub(in super::super) fn status(entry: &Value) -> Status {
        match text(&entry["label"]) {
            Some(text) => Status { id: integer(&entry["index"]), text: Some(text) },
            None => Status::default(),
        }
    }

    pub(in super::super) fn owner(entry: &Value) -> Option<i64> {
        super::first_person(&entry["persons_and_teams"])
    }

    /// `value` is a JSON string within a string; `text` is the same number.
    pub(in super::super) fn amount(entry: &Value) -> Option<Decimal> {
        let inner = entry["value"].as_str().and_then(|json| serde_json::from_str(json).ok());
        super::decimal(&inner.unwrap_or(Value::Null)).or_else(|| super::decimal(&entry["text"]))
    }

    pub(in super::super) fn industry(entry: &Value) -> Option<String> {
        trimmed(&entry["label"])
            .or_else(|| trimmed(&entry["values"][0]["label"]))
            .or_else(|| trimmed(&entry["text"]))
    }

    pub(in super::super) fn next_call(entry: &Value) -> Option<NaiveDate> {
        super::date(&entry["date"])
    }
}

/// Teams own nothing: the first entry with `kind` person.
fn first_person(entries: &Value) -> Option<i64> {
    let person = entries.as_array()?.iter().find(|entry| entry["kind"] == "person")?;
    integer(&person["id"])
}

/// An exact decimal of at most 28 digits, or nothing.
fn decimal(value: &Value) -> Option<Decimal> {
    let digits = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.replace('\0', "").trim().to_owned(),
        _ => return None,
    };
    if digits.contains(['e', 'E']) {
        return Decimal::from_scientific(&digits).ok();
    }
    let count = digits.chars().filter(char::is_ascii_digit).count();
    if count > 28 { None } else { Decimal::from_str(&digits).ok() }
}

fn date(value: &Value) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(value.as_str()?.trim(), "%Y-%m-%d").ok()
}
