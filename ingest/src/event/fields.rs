//! The few fields of an event that say what it is, read leniently: ids come as numbers and as texts, a
//! key may stand there twice (the last one counts), and nothing but `type` is needed.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use chrono::{DateTime, Utc};
use leadpulse_nats::{Kind, instant};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::answer::Refusal;

/// The fields as they stand in the text, not yet looked into.
#[derive(Debug, Default)]
pub(super) struct Fields<'e> {
    event_type: Option<&'e RawValue>,
    subscription_id: Option<&'e RawValue>,
    trigger_uuid: Option<&'e RawValue>,
    trigger_time: Option<&'e RawValue>,
    changed_at: Option<&'e RawValue>,
    updated_at: Option<&'e RawValue>,
    column_values: Option<&'e RawValue>,
    board_id: Option<&'e RawValue>,
    pulse_id: Option<&'e RawValue>,
    item_id: Option<&'e RawValue>,
    id: Option<&'e RawValue>,
}

#[derive(Deserialize)]
#[serde(field_identifier)]
enum Key {
    #[serde(rename = "type")]
    Type,
    #[serde(rename = "subscriptionId")]
    SubscriptionId,
    #[serde(rename = "triggerUuid")]
    TriggerUuid,
    #[serde(rename = "triggerTime")]
    TriggerTime,
    #[serde(rename = "changedAt")]
    ChangedAt,
    #[serde(rename = "updated_at")]
    UpdatedAt,
    #[serde(rename = "columnValues")]
    ColumnValues,
    #[serde(rename = "boardId", alias = "board_id")]
    BoardId,
    #[serde(rename = "pulseId")]
    PulseId,
    #[serde(rename = "itemId")]
    ItemId,
    #[serde(rename = "id")]
    Id,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut fields = Fields::default();
        while let Some(key) = map.next_key()? {
            let field = match key {
                Key::Type => &mut fields.event_type,
                Key::SubscriptionId => &mut fields.subscription_id,
                Key::TriggerUuid => &mut fields.trigger_uuid,
                Key::TriggerTime => &mut fields.trigger_time,
                Key::ChangedAt => &mut fields.changed_at,
                Key::UpdatedAt => &mut fields.updated_at,
                Key::ColumnValues => &mut fields.column_values,
                Key::BoardId => &mut fields.board_id,
                Key::PulseId => &mut fields.pulse_id,
                Key::ItemId => &mut fields.item_id,
                Key::Id => &mut fields.id,
                Key::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(fields)
    }
}

impl<'e> Fields<'e> {
    pub(super) fn of(event: &'e RawValue) -> Result<Self, Refusal> {
        serde_json::from_str(event.get()).map_err(|_| Refusal::NotAnEvent("`event` is no object"))
    }

    pub(super) fn kind(&self) -> Result<Cow<'e, str>, Refusal> {
        self.event_type
            .and_then(text)
            .filter(|kind| !kind.is_empty())
            .ok_or(Refusal::NotAnEvent("`event.type` is no text"))
    }

    pub(super) fn subscription_id(&self) -> Option<Cow<'e, str>> {
        self.subscription_id.and_then(text_or_number)
    }

    pub(super) fn trigger_uuid(&self) -> Option<Cow<'e, str>> {
        self.trigger_uuid.and_then(text_or_number)
    }

    pub(super) fn board_id(&self) -> Option<i64> {
        self.board_id.and_then(id)
    }

    pub(super) fn item_id(&self, kind: &Kind) -> Option<i64> {
        let own = match kind {
            Kind::ItemSnapshot => self.id,
            _ => None,
        };
        [self.pulse_id, self.item_id, own].into_iter().flatten().find_map(id)
    }

    /// Unix seconds with decimals, never through a float.
    pub(super) fn changed_at(&self) -> Option<DateTime<Utc>> {
        self.changed_at.and_then(text_or_number).and_then(|text| instant::parse_unix_seconds(&text))
    }

    pub(super) fn trigger_time(&self) -> Option<DateTime<Utc>> {
        self.trigger_time.and_then(time)
    }

    pub(super) fn updated_at(&self) -> Option<DateTime<Utc>> {
        self.updated_at.and_then(time)
    }

    /// The instants at which the columns of a created item were filled.
    pub(super) fn column_times(&self) -> impl Iterator<Item = DateTime<Utc>> + use<'e> {
        let columns: BTreeMap<Cow<'e, str>, &'e RawValue> =
            self.column_values.and_then(read).unwrap_or_default();
        columns.into_values().filter_map(|column| {
            let values: BTreeMap<Cow<'e, str>, &'e RawValue> = read(column)?;
            values.get("changed_at").copied().and_then(time)
        })
    }
}

fn read<'e, T: Deserialize<'e>>(raw: &'e RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

/// A text, decoded; borrowed where nothing in it is escaped.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let quoted = raw.get();
    match quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
        Some(_) => serde_json::from_str(quoted).ok().map(Cow::Owned),
        None => None,
    }
}

/// A text, or a number as it is spelt.
fn text_or_number(raw: &RawValue) -> Option<Cow<'_, str>> {
    match raw.get().as_bytes().first()? {
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(raw.get())),
        _ => text(raw),
    }
}

fn id(raw: &RawValue) -> Option<i64> {
    text_or_number(raw)?.trim().parse().ok()
}

fn time(raw: &RawValue) -> Option<DateTime<Utc>> {
    instant::parse(&text(raw)?)
}
