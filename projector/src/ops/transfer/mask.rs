//! Pseudonyms for names and e-mail addresses: the same one for the same text under the same key, so that
//! a masked copy still has its people and leads, and nobody without the key finds out who they are.

use std::{collections::HashMap, sync::Arc};

use anyhow::{Result, ensure};
use hmac::{Hmac, KeyInit, Mac};
use leadpulse_service::config::Config;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::Sha256;

/// A shorter key can be guessed.
const SHORTEST: usize = 16;
/// Fields of an event that are a lead's name.
const LEAD_NAMES: [&str; 3] = ["pulseName", "itemName", "parentItemName"];
/// Texts that people wrote.
const TEXTS: [&str; 3] = ["body", "textBody", "text_body"];
/// Types of columns whose values are about people, or are whatever somebody typed.
const PERSONAL: [&str; 9] = [
    "text",
    "long-text",
    "long_text",
    "email",
    "phone",
    "people",
    "multiple-person",
    "person",
    "location",
];

pub struct Mask {
    key: SecretString,
    /// The mapped columns of each board, but the owner's: figures are made of them, so they stay.
    figures: Arc<HashMap<(String, i64), Vec<String>>>,
}

impl Mask {
    pub fn new(key: SecretString, config: &Config) -> Result<Self> {
        ensure!(
            key.expose_secret().len() >= SHORTEST,
            "the key for masking has fewer than {SHORTEST} characters"
        );
        let mut figures = HashMap::new();
        for org in &config.orgs {
            for board in &org.boards {
                let columns = &board.columns;
                let kept =
                    [&columns.status, &columns.amount, &columns.industry, &columns.next_call];
                let kept = kept.into_iter().flatten().cloned().collect();
                figures.insert((org.id.clone(), board.id), kept);
            }
        }
        Ok(Self { key, figures: Arc::new(figures) })
    }

    /// The event with its names, texts and addresses replaced. Ids, labels, amounts and times stay.
    pub fn event(&self, org_id: &str, event: &str) -> Result<String> {
        let mut event: Value = serde_json::from_str(event)?;
        if let Value::Object(fields) = &mut event {
            self.fields(org_id, fields);
        }
        self.addresses(&mut event);
        Ok(serde_json::to_string(&event)?)
    }

    fn fields(&self, org_id: &str, fields: &mut Map<String, Value>) {
        let text = |fields: &Map<String, Value>, name: &str| {
            fields.get(name).and_then(Value::as_str).map(str::to_owned)
        };
        let kind = text(fields, "type").unwrap_or_default();
        let board = fields.get("boardId").and_then(Value::as_i64).unwrap_or(0);
        let kept = self.figures.get(&(org_id.to_owned(), board)).cloned().unwrap_or_default();
        for name in LEAD_NAMES {
            self.replace(fields.get_mut(name), "Lead");
        }
        for name in TEXTS {
            self.replace(fields.get_mut(name), "Text");
        }
        match kind.as_str() {
            "user_snapshot" => self.replace(fields.get_mut("name"), "User"),
            "item_snapshot" => self.replace(fields.get_mut("name"), "Lead"),
            "update_name" | "change_name" | "change_subitem_name" => {
                for side in ["value", "previousValue"] {
                    let name = fields.get_mut(side).and_then(|value| value.get_mut("name"));
                    self.replace(name, "Lead");
                }
            }
            _ => {}
        }
        let personal = |column: Option<&String>, kind: Option<&String>| {
            column.is_none_or(|column| !kept.contains(column))
                && kind.is_some_and(|kind| PERSONAL.contains(&kind.as_str()))
        };
        if personal(text(fields, "columnId").as_ref(), text(fields, "columnType").as_ref()) {
            for side in ["value", "previousValue"] {
                self.texts(fields.get_mut(side));
            }
        }
        for (column, value) in
            fields.get_mut("columnValues").and_then(Value::as_object_mut).into_iter().flatten()
        {
            let plain =
                value.get("value").is_some_and(Value::is_string) || value.get("email").is_some();
            if plain && !kept.contains(column) {
                self.texts(Some(value));
            }
        }
        let values = fields.get_mut("column_values").and_then(Value::as_array_mut);
        for value in values.into_iter().flatten() {
            let of = |name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
            if personal(of("id").as_ref(), of("type").as_ref()) {
                self.texts(Some(value));
            }
        }
    }

    /// All free texts of a value of a column; what says who or what it is stays.
    fn texts(&self, value: Option<&mut Value>) {
        const FREE: [&str; 9] = [
            "text",
            "value",
            "email",
            "phone",
            "label",
            "display_value",
            "address",
            "city",
            "street",
        ];
        match value {
            Some(Value::Object(fields)) => {
                for (name, value) in fields {
                    let free = FREE.contains(&name.as_str());
                    match value {
                        Value::String(_) if free => self.replace(Some(value), "Text"),
                        Value::Object(_) if free => self.texts(Some(value)),
                        _ => {}
                    }
                }
            }
            text => self.replace(text, "Text"),
        }
    }

    /// Addresses wherever they stand.
    fn addresses(&self, value: &mut Value) {
        match value {
            Value::String(text) if text.contains('@') => {
                let words =
                    text.split_inclusive(|c: char| c.is_whitespace() || "<>,;\"'()".contains(c));
                *text = words.map(|word| self.address(word)).collect();
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.addresses(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.addresses(value)),
            _ => {}
        }
    }

    fn address(&self, word: &str) -> String {
        let bare = word.trim_end_matches(|c: char| c.is_whitespace() || "<>,;\"'()".contains(c));
        match bare.split_once('@') {
            Some((name, host)) if !name.is_empty() && !host.is_empty() => {
                let rest = word.get(bare.len()..).unwrap_or_default();
                format!("{}@example.invalid{rest}", self.pseudonym(bare))
            }
            _ => word.to_owned(),
        }
    }

    fn replace(&self, value: Option<&mut Value>, kind: &str) {
        if let Some(Value::String(text)) = value
            && !text.trim().is_empty()
        {
            *text = format!("{kind} {}", self.pseudonym(text));
        }
    }

    fn pseudonym(&self, text: &str) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.key.expose_secret().as_bytes())
        else {
            return "masked".to_owned();
        };
        mac.update(text.trim().to_lowercase().as_bytes());
        hex::encode(mac.finalize().into_bytes().get(..6).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(key: &str) -> Mask {
        let text = "[[orgs]]\nid = \"demo\"\n[[orgs.boards]]\nid = 1\ncolumns = { amount = \"sum\", industry = \"ind\" }";
        let config = Config::parse("test", text, &|_| None).unwrap();
        Mask::new(SecretString::from(key.to_owned()), &config).unwrap()
    }

    #[test]
    fn names_texts_and_addresses_go_and_what_figures_are_made_of_stays() {
        let mask = mask("a key that is long enough");
        let cases = [
            r#"{"type":"create_pulse","boardId":1,"pulseName":"Dana Levi","columnValues":{"status":{"label":{"index":2,"text":"Won"}},"mail":{"email":"dana@x.com","text":"dana@x.com"},"t":{"value":"Dana"},"ind":{"value":"Finance"},"sum":{"value":"60.10"},"n":{"value":12500.50}}}"#,
            r#"{"type":"update_name","value":{"name":"Dana Levi"},"previousValue":{"name":"Dana"}}"#,
            r#"{"type":"user_snapshot","user_id":"7001","name":"Dana Levi","email":"dana@x.com"}"#,
            r#"{"type":"create_update","body":"<p>call Dana, dana@x.com</p>","textBody":"call Dana"}"#,
            r#"{"type":"update_column_value","boardId":1,"columnId":"mail","columnType":"email","value":{"email":"dana@x.com","text":"Dana"}}"#,
            r#"{"type":"item_snapshot","name":"Dana Levi","column_values":[{"id":"p","type":"people","text":"Dana Levi","persons_and_teams":[{"id":"7001"}]},{"id":"s","type":"status","text":"Won"}]}"#,
        ];
        for case in cases {
            let masked = mask.event("demo", case).unwrap();
            assert!(!masked.to_lowercase().contains("dana"), "{masked}");
            for kept in ["\"Won\"", "Finance", "60.10", "12500.50", "7001", "\"index\":2"] {
                assert_eq!(case.contains(kept), masked.contains(kept), "{kept}: {masked}");
            }
        }
    }

    #[test]
    fn a_pseudonym_is_stable_under_its_key_and_another_under_another() {
        let name = r#"{"pulseName":"Dana"}"#;
        let one = mask("a key that is long enough").event("demo", name).unwrap();
        assert_eq!(one, mask("a key that is long enough").event("demo", name).unwrap());
        assert_ne!(one, mask("another key, long enough").event("demo", name).unwrap());
    }
}
