//! Fields that come and go: what an event still means when one of them is not as usual.

use proptest::{option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::payload::{Webhook, iso_millis};

/// The oddities, and the list of them all: none can be forgotten.
macro_rules! oddities {
    ($($name:ident)*) => {
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Oddity {
            $($name),*
        }

        const ALL: &[Oddity] = &[$(Oddity::$name),*];
    };
}

oddities! {
    NullParent
    TimeWithOffset
    NoTime
    BrokenTime
    SubscriptionAsText
    NullUuid
    NoUser
    NobodyUser
    EmptyGroup
    NullName
    ItemIdBesideNullPulseId
    EmptyLabel
    NullLabel
    NoValue
    NoColumn
    NoBoard
    UnknownFields
}

pub(super) fn oddity() -> impl Strategy<Value = Option<Oddity>> {
    option::weighted(0.15, select(ALL))
}

impl Webhook {
    pub(super) fn with(mut self, oddity: Option<Oddity>) -> Self {
        match oddity {
            None => {}
            Some(Oddity::NullParent) => self.set_where_missing("parentItemId", Value::Null),
            Some(Oddity::TimeWithOffset) => {
                if let Some(at) = self.trigger_time.take() {
                    let local = iso_millis(at + 2 * 3_600_000_000).replace('Z', "+02:00");
                    self.set("triggerTime", json!(local));
                }
            }
            Some(Oddity::NoTime) => self.trigger_time = None,
            Some(Oddity::BrokenTime) => {
                self.trigger_time = None;
                self.set("triggerTime", json!("2026-02-30T25:00:00Z"));
            }
            Some(Oddity::SubscriptionAsText) => self.set("subscriptionId", json!("501")),
            Some(Oddity::NullUuid) => self.set("triggerUuid", Value::Null),
            Some(Oddity::NoUser) => self.fields.retain(|(key, _)| key != "userId"),
            Some(Oddity::NobodyUser) => self.set("userId", json!(0)),
            Some(Oddity::EmptyGroup) => self.set("groupId", json!("")),
            Some(Oddity::NullName) => self.set("pulseName", Value::Null),
            Some(Oddity::ItemIdBesideNullPulseId) => self.rename("pulseId", "itemId"),
            Some(Oddity::EmptyLabel) => self.label(json!({"index": 2, "text": ""})),
            Some(Oddity::NullLabel) => self.label(Value::Null),
            Some(Oddity::NoValue) => self.fields.retain(|(key, _)| key != "value"),
            Some(Oddity::NoColumn) => self.fields.retain(|(key, _)| key != "columnId"),
            Some(Oddity::NoBoard) => self.set("boardId", Value::Null),
            Some(Oddity::UnknownFields) => {
                self.set("newIn2027", json!({"a": [1, 2.50, null], "ü": "\u{0}"}));
            }
        }
        self
    }

    fn set_where_missing(&mut self, key: &str, value: Value) {
        if !self.fields.iter().any(|(known, _)| known == key) {
            self.set(key, value);
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        let Some(at) = self.fields.iter().position(|(key, _)| key == from) else { return };
        let value = self.fields[at].1.take();
        self.set(to, value);
    }

    fn label(&mut self, label: Value) {
        for (key, value) in &mut self.fields {
            if key == "value" && value.get("label").is_some() {
                value["label"] = label.clone();
            }
        }
    }
}
