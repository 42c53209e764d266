//! The webhook's vocabulary of column values (monday.md, Column values).

use leadpulse_nats::Kind;
use leadpulse_service::config::Board;
use serde_json::{Map, Value};

use super::{Field, Role, Status, roles, text};

pub(super) fn name(kind: &Kind, event: &Map<String, Value>) -> Option<String> {
    let renamed = || text::filled(event.get("value")?.get("name"));
    let by_update = if *kind == Kind::UpdateName { renamed() } else { None };
    by_update
        .or_else(|| text::filled(event.get("pulseName")))
        .or_else(|| text::filled(event.get("itemName")))
}

pub(super) fn group(event: &Map<String, Value>) -> Option<String> {
    text::filled(event.get("destGroupId")).or_else(|| text::filled(event.get("groupId")))
}

/// The fields that this value of this column writes; none if the column is not mapped.
pub(super) fn column(board: &Board, column: &str, value: &Value) -> Vec<Field> {
    roles(board, column)
        .map(|role| match role {
            Role::Status => Field::Status(status(value)),
            Role::Owner => Field::Owner(owner(value)),
            Role::Amount => Field::Amount(amount(value)),
            Role::Industry => Field::Industry(industry(value)),
            Role::NextCall => Field::NextCall(text::date(value.get("date"))),
        })
        .collect()
}

/// A label without a text is the empty one, whatever its index.
fn status(value: &Value) -> Option<Status> {
    let label = value.get("label")?;
    let text = text::filled(label.get("text"))?;
    Some(Status { id: text::integer(label.get("index")), label: Some(text) })
}

/// The first person; teams do not own leads.
fn owner(value: &Value) -> Option<i64> {
    first_person(value.get("personsAndTeams")?)
}

pub(super) fn first_person(persons_and_teams: &Value) -> Option<i64> {
    let people = persons_and_teams.as_array()?;
    let person =
        people.iter().find(|entry| entry.get("kind").and_then(Value::as_str) == Some("person"));
    text::integer(person?.get("id"))
}

fn amount(value: &Value) -> Option<rust_decimal::Decimal> {
    let number = match value {
        Value::Object(fields) => fields.get("value")?,
        plain => plain,
    };
    let amount = text::decimal(number);
    if amount.is_none() && !number.is_null() && number.as_str() != Some("") {
        metrics::counter!("projector_unparsed_amounts_total").increment(1);
    }
    amount
}

/// A label's text, the first chosen name, or a text, from whichever column type the board uses.
fn industry(value: &Value) -> Option<String> {
    let label = value.get("label").and_then(|label| label.get("text"));
    let chosen = value.get("chosenValues").and_then(|values| values.get(0)?.get("name"));
    let texts = [label, chosen, value.get("value"), value.get("text"), Some(value)];
    texts.into_iter().find_map(text::trimmed)
}
