//! Pseudonyms for names and e-mail addresses: the same one for the same text under the same key, so that
//! a masked copy still has its people and leads, and nobody without the key finds out who they are.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use hmac::{Hmac, KeyInit, Mac};
use leadpulse_nats::Kind;
use leadpulse_service::config::Config;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::event::object;

/// A shorter key can be guessed.
pub const SHORTEST: usize = 16;
/// Fields of an event that are a lead's name.
const LEAD_NAMES: [&str; 3] = ["pulseName", "itemName", "parentItemName"];
/// Texts that people wrote.
const TEXTS: [&str; 3] = ["body", "textBody", "text_body"];
/// Types of columns that hold what a board offers to choose from, numbers, or times: all that is not personal
/// in itself. A type that is not listed is masked, whatever monday.com will call it.
const CHOSEN: [&str; 22] = [
    "auto_number",
    "boolean",
    "button",
    "checkbox",
    "color",
    "color_picker",
    "country",
    "date",
    "dropdown",
    "hour",
    "item_id",
    "numbers",
    "numeric",
    "progress",
    "rating",
    "status",
    "timeline",
    "timerange",
    "vote",
    "week",
    "world-clock",
    "world_clock",
];
/// Fields that say which, when, or of what kind something is. All other texts of a masked value go.
const STRUCTURE: [&str; 27] = [
    "app",
    "boardId",
    "changedAt",
    "changed_at",
    "columnId",
    "columnType",
    "created_at",
    "date",
    "from",
    "groupId",
    "icon",
    "id",
    "kind",
    "linked_item_ids",
    "originalTriggerUuid",
    "pulseId",
    "state",
    "status",
    "time",
    "timezone",
    "to",
    "triggerTime",
    "triggerUuid",
    "type",
    "updateId",
    "updated_at",
    "user_id",
];

pub struct Mask {
    key: SecretString,
    /// The mapped columns of each board, but the owner's: figures are made of them, so they stay.
    figures: HashMap<(String, i64), Vec<String>>,
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
        Ok(Self { key, figures })
    }

    /// The event with its names, texts and addresses replaced. Ids, labels, amounts and times stay.
    pub fn event(&self, org_id: &str, board_id: Option<i64>, event: &str) -> Result<String> {
        let board = (org_id.to_owned(), board_id.unwrap_or(0));
        let kept = self.figures.get(&board).map_or(&[][..], Vec::as_slice);
        let mut event = match object::parse(event) {
            Some(fields) => Value::Object(fields),
            None => serde_json::from_str(event)?,
        };
        if let Value::Object(fields) = &mut event {
            self.fields(fields, kept);
        }
        self.addresses(&mut event);
        Ok(serde_json::to_string(&event)?)
    }

    fn fields(&self, fields: &mut Map<String, Value>, kept: &[String]) {
        let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = Kind::of(text("type"));
        let column_stays = stays(text("columnId"), text("columnType"), kept);
        for (name, value) in &mut *fields {
            match (name.as_str(), &kind) {
                (name, _) if LEAD_NAMES.contains(&name) => self.replace(value, "Lead"),
                (name, _) if TEXTS.contains(&name) => self.replace(value, "Text"),
                ("name", Kind::ItemSnapshot) => self.replace(value, "Lead"),
                ("name", Kind::UserSnapshot) => self.replace(value, "User"),
                ("email", Kind::UserSnapshot) => {}
                ("value" | "previousValue", Kind::UpdateName) => {
                    value.get_mut("name").into_iter().for_each(|name| self.replace(name, "Lead"));
                }
                ("value" | "previousValue", _) if !column_stays => self.texts(value),
                ("columnValues", _) => self.values_by_column(value, kept),
                ("column_values", _) => self.listed_values(value, kept),
                // A snapshot has all that the API tells, and an unknown kind whatever it has.
                (name, Kind::ItemSnapshot | Kind::UserSnapshot | Kind::Other(_))
                    if !STRUCTURE.contains(&name) =>
                {
                    self.texts(value);
                }
                _ => {}
            }
        }
    }

    /// The values of a new item, which come without the types of their columns: what is no choice is masked.
    fn values_by_column(&self, values: &mut Value, kept: &[String]) {
        for (column, value) in values.as_object_mut().into_iter().flatten() {
            let chosen =
                value.pointer("/label/index").is_some() || value.get("chosenValues").is_some();
            if !chosen && !kept.contains(column) {
                self.texts(value);
            }
        }
    }

    /// The values of a snapshot.
    fn listed_values(&self, values: &mut Value, kept: &[String]) {
        for value in values.as_array_mut().into_iter().flatten() {
            let of = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
            if !stays(of("id"), of("type"), kept) {
                self.texts(value);
            }
        }
    }

    /// All texts of a value but those that say which, when, or of what kind it is.
    fn texts(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                let free =
                    fields.iter_mut().filter(|(name, _)| !STRUCTURE.contains(&name.as_str()));
                free.for_each(|(_, value)| self.texts(value));
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.texts(value)),
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

    fn replace(&self, value: &mut Value, kind: &str) {
        if let Value::String(text) = value
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

/// Is the column mapped, or of a type that is not personal in itself?
fn stays(column: &str, kind: &str, kept: &[String]) -> bool {
    kept.iter().any(|known| known == column) || CHOSEN.contains(&kind)
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
            let masked = mask.event("demo", Some(1), case).unwrap();
            assert!(!masked.to_lowercase().contains("dana"), "{masked}");
            for kept in ["\"Won\"", "Finance", "60.10", "12500.50", "7001", "\"index\":2"] {
                assert_eq!(case.contains(kept), masked.contains(kept), "{kept}: {masked}");
            }
        }
    }

    #[test]
    fn what_is_not_known_to_be_harmless_goes() {
        let mask = mask("a key that is long enough");
        let cases = [
            r#"{"type":"create_pulse","boardId":1,"columnValues":{"long":{"text":"call Dana"},"phone":{"phone":"+972 dana"},"link":{"url":"https://x.com/dana","text":"x"},"place":{"address":"Dana st. 1","lat":"32.1"},"tags":{"tags":["dana"]},"when":{"date":"2026-01-02"}}}"#,
            r#"{"type":"update_column_value","boardId":1,"columnId":"l","columnType":"link","value":{"url":"https://x.com/dana"}}"#,
            r#"{"type":"update_column_value","boardId":1,"columnId":"n","columnType":"a type of next year","value":{"anything":{"said":"Dana"}},"previousValue":"Dana"}"#,
            r#"{"type":"update_column_value","boardId":1,"columnId":"t","value":{"value":"Dana"}}"#,
            r#"{"type":"item_snapshot","id":"7","name":"x","creator":{"id":"7001","name":"Dana"},"column_values":[{"id":"name","type":"name","text":"Dana Levi"},{"id":"m","type":"mirror","display_value":"Dana"},{"id":"d","type":"date","text":"2026-01-02"}]}"#,
            r#"{"type":"user_snapshot","user_id":"7001","name":"x","title":"Dana's boss","mobile_phone":"dana","kind":"member","status":"active"}"#,
            r#"{"type":"create_update","body":"Dana","extra":{"$serde_json::private::Number":"x"}}"#,
            r#"{"type":"something_new","boardId":1,"pulseId":42,"said":{"by":"Dana"}}"#,
        ];
        for case in cases {
            let masked = mask.event("demo", Some(1), case).unwrap();
            assert!(!masked.to_lowercase().contains("dana"), "{masked}");
            for kept in ["2026-01-02", "\"7001\"", "member", "active", "\"t\"", "42"] {
                assert_eq!(case.contains(kept), masked.contains(kept), "{kept}: {masked}");
            }
        }
    }

    #[test]
    fn a_pseudonym_is_stable_under_its_key_and_another_under_another() {
        let name = r#"{"pulseName":"Dana"}"#;
        let event = |key: &str| mask(key).event("demo", Some(1), name).unwrap();
        assert_eq!(event("a key that is long enough"), event("a key that is long enough"));
        assert_ne!(event("a key that is long enough"), event("another key, long enough"));
    }
}
