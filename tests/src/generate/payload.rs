//! One webhook as text. The order of its keys varies, as monday.com's does.

use chrono::{DateTime, SecondsFormat};
use serde_json::Value;

use crate::naive::Micros;

/// The `event` object of one delivery.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub fields: Vec<(String, Value)>,
    /// When monday.com sent it; the only field that differs from one attempt to the next, with `isRetry`.
    pub trigger_time: Option<Micros>,
    /// Where the first key goes: a cheap way to vary the order.
    pub rotation: usize,
}

impl Webhook {
    pub fn to_json(&self) -> String {
        let mut fields = self.fields.clone();
        if let Some(at) = self.trigger_time {
            fields.push(("triggerTime".into(), Value::String(iso_millis(at))));
        }
        let middle = self.rotation % fields.len().max(1);
        fields.rotate_left(middle);
        let fields: Vec<String> = fields
            .iter()
            .map(|(key, value)| format!("{}:{value}", Value::from(key.as_str())))
            .collect();
        format!("{{{}}}", fields.join(","))
    }

    /// The next attempt at the same event.
    pub fn retried(&self, later: Micros) -> Self {
        let mut retry = self.clone();
        retry.trigger_time = self.trigger_time.map(|at| at + later);
        retry.set("isRetry", Value::Bool(true));
        retry.rotation += 3;
        retry
    }

    /// The same event through a second subscription.
    pub fn twin(&self) -> Self {
        let mut twin = self.clone();
        twin.set("subscriptionId", Value::from(990));
        twin
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.fields.retain(|(known, _)| known != key);
        self.fields.push((key.to_owned(), value));
    }
}

pub(super) fn iso_millis(at: Micros) -> String {
    let time = DateTime::from_timestamp_micros(at).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// Unix seconds with this many decimals, as a JSON number that never was a float.
pub(super) fn unix_seconds(at: Micros, decimals: usize) -> Value {
    let (seconds, micros) = (at / 1_000_000, at % 1_000_000);
    let fraction: String = format!("{micros:06}9").chars().take(decimals).collect();
    let text = if decimals == 0 { seconds.to_string() } else { format!("{seconds}.{fraction}") };
    serde_json::from_str(&text).unwrap_or(Value::Null)
}
