//! `GET /openapi.json` and `GET /docs`: what can be asked and what comes back, from the binary. The
//! tests hold every answer to this document.

mod endpoints;
mod schemas;

use std::sync::LazyLock;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use endpoints::{Endpoint, PARAMETERS};

use crate::{asked::Asked, problem::Problem};

static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());

pub(crate) async fn openapi(asked: Asked) -> Result<Response, Problem> {
    asked.params().finish()?;
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], DOCUMENT.as_str()).into_response())
}

/// A page without anything from outside.
pub(crate) async fn docs(asked: Asked) -> Result<Response, Problem> {
    asked.params().finish()?;
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    let policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'";
    let headers = [
        (header::CONTENT_TYPE, html),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)),
    ];
    Ok((headers, include_str!("openapi/docs.html")).into_response())
}

fn document() -> Value {
    let paths: Map<String, Value> = endpoints::all()
        .map(|endpoint| {
            (endpoint.path.to_owned(), json!({ &endpoint.method: operation(&endpoint) }))
        })
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leadpulse read API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Ids are strings, money is a decimal string, instants are RFC 3339 UTC with \
                microseconds, ratios are 0..1, durations are seconds; null is unknown and 0 is zero. \
                The org comes from the API key, whose scopes are `leads:read`, `metrics:read`, `users:read`, \
                `pii:read`, `export:read`, `ops:read` and `ops:write`. The operators' commands of the whole \
                instance are for keys of no org, with the scope `ops:instance` and no other.",
        },
        "security": [{ "bearer": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "x-api-key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
            "schemas": schemas::all(),
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let in_path = |name: &str| endpoint.path.contains(&format!("{{{name}}}"));
    let parameters: Vec<Value> = endpoint
        .parameters
        .iter()
        .map(|name| {
            let place = match *name {
                name if in_path(name) => "path",
                name if name.starts_with("leadpulse-") => "header",
                _ => "query",
            };
            parameter(name, place, endpoint)
        })
        .collect();
    let answer = match endpoint.content_type {
        "application/json" => {
            json!({ "$ref": format!("#/components/schemas/{}", endpoint.schema) })
        }
        _ => json!({ "type": "string" }),
    };
    let mut responses = Map::new();
    // What was begun is accepted, and not done yet.
    let status = if endpoint.schema == "Begun" { "202" } else { "200" };
    let forms = endpoint.content_type.split(',');
    let content: Map<String, Value> =
        forms.map(|form| (form.to_owned(), json!({ "schema": answer }))).collect();
    responses.insert(status.into(), json!({ "description": endpoint.summary, "content": content }));
    let (form, schema) = match endpoint.path.starts_with("/outcomes") {
        true => ("application/json", "Refusal"),
        false => ("application/problem+json", "Problem"),
    };
    for (status, description) in [
        ("400", "A parameter is wrong or unknown"),
        ("401", "No valid key"),
        ("403", "The key lacks the scope"),
        ("404", "There is no such thing in this org"),
        ("409", "An operator's wish can't be granted as things are"),
        ("429", "The key's limit is reached"),
        ("503", "Not in time, or not yet applied"),
    ] {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        let content =
            json!({ "description": description, "content": { form: { "schema": schema } } });
        responses.insert(status.into(), content);
    }
    let mut operation = json!({
        "summary": endpoint.summary,
        "description": format!("Scope: `{}`.", endpoint.scope),
        "parameters": parameters,
        "responses": responses,
    });
    if endpoint.path == crate::ops::instance::IMPORT {
        let content = json!({ "application/octet-stream": {} });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    if endpoint.path.starts_with("/outcomes") {
        operation["security"] = json!([{ "x-api-key": [] }]);
    }
    operation
}

fn parameter(name: &str, place: &str, endpoint: &Endpoint) -> Value {
    let known = PARAMETERS.iter().find(|parameter| parameter.0 == name);
    let (kind, description) = known.map_or(("str", ""), |(_, kind, text)| (*kind, *text));
    let (kind, repeatable) = match kind.strip_suffix('*') {
        Some(kind) => (kind, true),
        None => (kind, false),
    };
    let mut schema = schemas::kind(kind);
    if name == "limit" {
        schema = json!({ "type": "integer", "minimum": 1, "maximum": endpoint.most });
    }
    if repeatable && place == "query" && !endpoint.once.contains(&name) {
        schema = json!({ "type": "array", "items": schema });
    }
    json!({
        "name": name,
        "in": place,
        "required": place == "path" || (name == "q" && endpoint.path == "/v1/search"),
        "description": description,
        "schema": schema,
    })
}
