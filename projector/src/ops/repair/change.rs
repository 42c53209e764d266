//! What changes, field by field.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::fold::{Folded, Touched};
use crate::{
    event::{LeadKey, UserEvent},
    ops::fields,
    store::StoredUser,
};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    pub from: Value,
    pub to: Value,
}

type Fields = BTreeMap<String, FieldChange>;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LeadChange {
    pub org_id: String,
    pub board_id: i64,
    pub item_id: i64,
    /// There was no row.
    pub created: bool,
    /// Made from all its events, not onto what was stored.
    pub whole: bool,
    pub fields: Fields,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UserChange {
    pub org_id: String,
    pub user_id: i64,
    pub fields: Fields,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentChange {
    pub org_id: String,
    pub agent_id: i64,
    pub window_days: i32,
    pub fields: Fields,
}

impl LeadChange {
    pub(super) fn is_of(&self, key: &LeadKey) -> bool {
        (self.org_id.as_str(), self.board_id, self.item_id)
            == (key.org_id.as_str(), key.board_id, key.item_id)
    }
}

impl Touched {
    pub(super) fn change(&self, key: &LeadKey) -> Option<LeadChange> {
        let row = self.row.as_ref()?;
        let mut to = fields::of(row);
        to.insert("fold_state".into(), digest(&self.state.encode()));
        let mut from = self.stored.as_ref().map(|(row, _)| fields::of(row)).unwrap_or_default();
        if let Some((_, state)) = &self.stored {
            from.insert("fold_state".into(), digest(state));
        }
        let fields = differences(&from, &to);
        (!fields.is_empty()).then(|| LeadChange {
            org_id: key.org_id.clone(),
            board_id: key.board_id,
            item_id: key.item_id,
            created: self.stored.is_none(),
            whole: self.whole,
            fields,
        })
    }
}

impl Folded {
    pub(super) fn lead_changes(&self) -> Vec<LeadChange> {
        self.leads.iter().filter_map(|(key, lead)| lead.change(key)).collect()
    }

    pub(super) fn user_changes(&self) -> Vec<UserChange> {
        let change = |(stored, event): &(Option<StoredUser>, UserEvent)| {
            let fields = differences(
                &stored.as_ref().map(StoredUser::fields).unwrap_or_default(),
                &StoredUser::of(event).fields(),
            );
            (!fields.is_empty()).then(|| UserChange {
                org_id: event.org_id.clone(),
                user_id: event.user_id,
                fields,
            })
        };
        self.users.iter().filter_map(change).collect()
    }
}

/// What remembers a lead is no text: enough of its digest to tell two of them apart.
fn digest(state: &[u8]) -> Value {
    json!(hex::encode(Sha256::digest(state).get(..8).unwrap_or_default()))
}

/// The fields that are not the same; a field that is missing is null.
pub(super) fn differences(from: &BTreeMap<String, Value>, to: &BTreeMap<String, Value>) -> Fields {
    let names = from.keys().chain(to.keys());
    let of = |fields: &BTreeMap<String, Value>, name| fields.get(name).cloned().unwrap_or_default();
    names
        .map(|name| (name.clone(), FieldChange { from: of(from, name), to: of(to, name) }))
        .filter(|(_, change)| change.from != change.to)
        .collect()
}
