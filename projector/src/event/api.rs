//! The API's vocabulary: an item as `items_page` gives it (monday.md, GraphQL API). It is not the
//! webhook's: a column value here has typed fields beside a JSON text.

use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use leadpulse_service::config::Board;
use rust_decimal::Decimal;
use serde_json::{Map, Value};

use super::{Act, Field, Lifecycle, Role, Status, Write, roles, text, webhook::first_person};

/// Name, group and state at the item's `updated_at`, each mapped column at its own where it has one.
pub(super) fn snapshot(
    event: &Map<String, Value>,
    occurred_at: i64,
    received_at: DateTime<Utc>,
    board: &Board,
) -> (Act, Vec<Write>) {
    // A clock from the future must not win for ever (spec.md §1).
    let latest = instant::latest_believed(received_at).timestamp_micros();
    let believed = |at: i64| if at > latest { received_at.timestamp_micros() } else { at };
    let at = moment(event.get("updated_at")).map_or(occurred_at, believed);
    let mut writes = Vec::new();
    let group = event.get("group").and_then(|group| group.get("id"));
    let fields = [
        text::filled(event.get("name")).map(Field::Name),
        text::filled(group).map(Field::Group),
        lifecycle(event.get("state")).map(Field::Lifecycle),
    ];
    writes.extend(fields.into_iter().flatten().map(|field| Write { at, field }));
    for value in event.get("column_values").and_then(Value::as_array).into_iter().flatten() {
        let Some(column) = value.get("id").and_then(Value::as_str) else { continue };
        let at = moment(value.get("updated_at")).map_or(at, believed);
        writes.extend(roles(board, column).map(|role| Write { at, field: field(role, value) }));
    }
    (Act::Snapshot { created_at: moment(event.get("created_at")) }, writes)
}

fn moment(value: Option<&Value>) -> Option<i64> {
    instant::parse(value?.as_str()?).map(|at| at.timestamp_micros())
}

fn lifecycle(state: Option<&Value>) -> Option<Lifecycle> {
    match state?.as_str()? {
        "active" => Some(Lifecycle::Active),
        "archived" => Some(Lifecycle::Archived),
        "deleted" => Some(Lifecycle::Deleted),
        _ => None,
    }
}

fn field(role: Role, value: &Value) -> Field {
    match role {
        Role::Status => Field::Status(status(value)),
        Role::Owner => Field::Owner(value.get("persons_and_teams").and_then(first_person)),
        Role::Amount => Field::Amount(amount(value)),
        Role::Industry => Field::Industry(industry(value)),
        Role::NextCall => Field::NextCall(text::date(value.get("date"))),
    }
}

fn status(value: &Value) -> Option<Status> {
    let label = text::filled(value.get("label")).or_else(|| text::filled(value.get("text")))?;
    Some(Status { id: text::integer(value.get("index")), label: Some(label) })
}

/// `value` is a JSON text that holds the number as a text; `text` is what a person sees.
/// The API's own `number` is a float and is never read.
fn amount(value: &Value) -> Option<Decimal> {
    let inner = value.get("value").and_then(Value::as_str);
    let inner = inner.and_then(|inner| serde_json::from_str::<Value>(inner).ok());
    inner.as_ref().and_then(text::decimal).or_else(|| text::decimal(value.get("text")?))
}

fn industry(value: &Value) -> Option<String> {
    let chosen = value.get("values").and_then(|values| values.get(0)?.get("label"));
    [value.get("label"), chosen, value.get("text")].into_iter().find_map(text::trimmed)
}
