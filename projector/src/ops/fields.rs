//! A row of LeadFact as named values, as `/v1/leads` spells them.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::fold::LeadRow;

/// An instant as it stands in every answer.
pub fn instant(at: DateTime<Utc>) -> Value {
    json!(at.to_rfc3339_opts(SecondsFormat::Micros, true))
}

/// All fields but the key.
pub fn of(row: &LeadRow) -> BTreeMap<String, Value> {
    let at = |at: Option<DateTime<Utc>>| at.map(instant);
    let id = |id: Option<i64>| id.map(|id| id.to_string());
    let fields = [
        ("name", json!(row.name)),
        ("group_id", json!(row.group_id)),
        ("status_id", json!(id(row.status_id))),
        ("status_label", json!(row.status_label)),
        ("assigned_user_id", json!(id(row.assigned_user_id))),
        ("assigned_at", json!(at(row.assigned_at))),
        ("deal_amount", json!(row.deal_amount.map(|amount| amount.normalize().to_string()))),
        ("industry", json!(row.industry)),
        ("next_call_date", json!(row.next_call_date.map(|date| date.to_string()))),
        ("entered_at", instant(row.entered_at)),
        ("entered_source", json!(row.entered_source)),
        ("first_touch_at", json!(at(row.first_touch_at))),
        ("last_activity_at", json!(at(row.last_activity_at))),
        ("state", json!(row.state.as_str())),
        ("closed_won_at", json!(at(row.closed_won_at))),
        ("closed_lost_at", json!(at(row.closed_lost_at))),
        ("closed_by_user_id", json!(id(row.closed_by_user_id))),
        ("lifecycle", json!(row.lifecycle.as_str())),
        ("last_event_at", instant(row.last_event_at)),
        ("last_seq", json!(row.last_seq)),
        ("trace_id", json!(row.trace_id.map(|id| id.simple().to_string()))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
