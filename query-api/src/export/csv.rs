//! Rows of CSV (RFC 4180) that no spreadsheet takes for formulas.

use serde::Serialize;
use serde_json::Value;

/// What Excel needs to take a file for UTF-8.
pub(super) const BOM: &str = "\u{feff}";

pub(super) fn header(columns: &[&str]) -> String {
    columns.join(",") + "\r\n"
}

/// One row: the fields of the JSON that a client of the list gets. `free` names those that hold texts
/// from outside.
pub(super) fn row(out: &mut String, columns: &[&str], free: &[&str], value: &impl Serialize) {
    let fields = serde_json::to_value(value).unwrap_or_default();
    for (place, column) in columns.iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        match &fields[*column] {
            Value::Null => {}
            Value::String(text) if free.contains(column) => quote(out, &harmless(text)),
            Value::String(text) => quote(out, text),
            other => quote(out, &other.to_string()),
        }
    }
    out.push_str("\r\n");
}

/// A text that begins like a formula is shown, not computed.
fn harmless(text: &str) -> String {
    let formula = text.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    if formula || text.starts_with(['\t', '\r', '\n']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

fn quote(out: &mut String, text: &str) {
    if text.contains([',', '"', '\r', '\n', ';']) {
        out.push('"');
        out.push_str(&text.replace('"', "\"\""));
        out.push('"');
    } else {
        out.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_escaped_and_formulas_neutralised_but_amounts_stay_numbers() {
        let mut out = String::new();
        let value = serde_json::json!({"name": "=1+\"x\",2", "deal_amount": "-5.5", "group": null});
        row(&mut out, &["name", "group", "deal_amount"], &["name"], &value);
        assert_eq!(out, "\"'=1+\"\"x\"\",2\",,-5.5\r\n");
        for text in ["@a", " +a", "\tx", "-1"] {
            assert!(harmless(text).starts_with('\''), "{text:?}");
        }
        assert_eq!(harmless("a=b"), "a=b");
    }
}
