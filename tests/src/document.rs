//! What the OpenAPI document says of an answer, and whether the answer is so: no field more and none less.

use serde_json::Value;

use crate::harness::{Answer, Service};

/// The document of a running query-api.
pub struct Document(Value);

impl Document {
    pub async fn of(api: &Service) -> Self {
        Self(api.page("/openapi.json").await.json())
    }

    /// Is there such a route?
    pub fn has(&self, path: &str) -> bool {
        self.route(path).is_some()
    }

    fn route(&self, path: &str) -> Option<&Value> {
        let path = path.split('?').next().unwrap_or_default();
        let same = |template: &str| {
            let mut parts = template.split('/').zip(path.split('/'));
            template.split('/').count() == path.split('/').count()
                && parts.all(|(part, found)| part.starts_with('{') || part == found)
        };
        let paths = self.0["paths"].as_object().expect("the document has paths");
        paths.iter().find(|(template, _)| same(template)).map(|(_, item)| item)
    }

    /// Holds an answer to what the document says of its status and form.
    pub fn check(&self, method: &str, path: &str, answer: &Answer) {
        let item = self.route(path).unwrap_or_else(|| panic!("{path} is not in the document"));
        if item[method.to_lowercase()].is_null() {
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            return;
        }
        let response = &item[method.to_lowercase()]["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{method} {path}: {} is not in the document", answer.status);
        let form = answer.header("content-type").unwrap_or_default();
        let form = form.split(';').next().unwrap_or_default();
        let content = &response["content"][form];
        assert!(content.is_object(), "{method} {path}: {form} is not in the document");
        if form.ends_with("json") && !form.ends_with("ndjson") {
            let mut wrong = Vec::new();
            faults(&self.0, &content["schema"], &answer.json(), path, &mut wrong);
            assert!(wrong.is_empty(), "{method} {path}: {wrong:#?}");
        }
    }
}

/// All that is wrong with a value.
pub fn faults(document: &Value, schema: &Value, value: &Value, place: &str, out: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap_or(&Value::Null);
        assert!(schema.is_object(), "{name} is not in the document");
        return faults(document, schema, value, place, out);
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        let wrong = |form: &Value| {
            let mut found = Vec::new();
            faults(document, form, value, place, &mut found);
            found
        };
        let all: Vec<_> = forms.iter().map(wrong).collect();
        if !all.iter().any(Vec::is_empty) {
            out.extend(all.into_iter().flatten());
        }
        return;
    }
    let fits = match schema["type"].as_str() {
        None => true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some(other) => panic!("the document has the type {other}"),
    };
    if !fits {
        out.push(format!("{place}: {value} is no {}", schema["type"]));
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        out.push(format!("{place}: {value} is none of {words:?}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        faults(document, &schema["items"], item, &format!("{place}[{index}]"), out);
    }
    for (name, field) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => {
                out.push(format!("{place} is not in the document"))
            }
            (Value::Null, rest) => faults(document, rest, field, &place, out),
            (known, _) => faults(document, known, field, &place, out),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap_or_default()).is_none() {
            out.push(format!("{place}.{name} is missing"));
        }
    }
}
