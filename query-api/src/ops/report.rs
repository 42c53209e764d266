//! The projector's reports as answers, and its errors as problems.

use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use projector::{ops::Usage, reader::ReadError};
use serde::Serialize;
use serde_json::Value;

use crate::problem::Problem;

/// A report as JSON. Nothing of it is cached: it is about this moment.
pub(super) fn respond(report: &impl Serialize) -> Result<Response, Problem> {
    let mut value = serde_json::to_value(report).map_err(|error| {
        tracing::error!(%error, "a report can't be written");
        Problem::Internal
    })?;
    ids_as_text(&mut value);
    let mut response = Json(value).into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    Ok(response)
}

/// Ids are strings in every answer: a browser's numbers end at 2^53.
fn ids_as_text(value: &mut Value) {
    const IDS: [&str; 4] = ["board_id", "item_id", "agent_id", "user_id"];
    match value {
        Value::Array(values) => values.iter_mut().for_each(ids_as_text),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Number(id) if IDS.contains(&name.as_str()) => {
                        *value = Value::String(id.to_string());
                    }
                    value => ids_as_text(value),
                }
            }
        }
        _ => {}
    }
}

/// What the tools say to an operator, said to one; what servers say stays in the log.
pub(super) fn told(error: anyhow::Error) -> Problem {
    if let Some(error) = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>()) {
        return Problem::from(error);
    }
    if let Some(fault) = error.chain().find_map(|cause| cause.downcast_ref::<ReadError>()) {
        // What is asked for is not in the stream: no other try mends that.
        if fault.is_fault() {
            return Problem::Refused(fault.to_string());
        }
        tracing::warn!(error = format!("{error:#}"), "the stream can't be read for an operator");
        return Problem::Unavailable;
    }
    match error.downcast::<Usage>() {
        Ok(Usage(detail)) => Problem::invalid("query", detail),
        Err(error) => Problem::Refused(error.to_string()),
    }
}
