//! The answers are what the OpenAPI document promises, no field more and none less.

use serde_json::Value;

use tests::document::faults;

use super::fixture::{LETTER, METRICS, Reads, USERS};

/// A value that the parameter takes, for each that is in the document.
fn sample(name: &str, schema: &Value) -> String {
    let of = schema.get("items").unwrap_or(schema);
    if let Some(words) = of["enum"].as_array() {
        return words[0].as_str().unwrap().to_owned();
    }
    let text = match name {
        "from" => "2026-01-01",
        "to" => "2030-01-01T00:00:00Z",
        "window" => "7d",
        "sort" => "avg_deal_size",
        "topics" => "leads",
        "metric" => "conversion_rate",
        "seq" => "1",
        "kind" | "error" => "x",
        "q" => "lead",
        "min_amount" => "1.5",
        "max_amount" => "100",
        "ids" => "7001,7002",
        "board_id" | "boardId" => "9002",
        "agent_id" => "7001",
        "item_id" | "limit" | "min_n" => "1",
        "min_seq" | "wait_ms" => "0",
        "industry" | "status" => "x",
        _ => panic!("no sample for {name}"),
    };
    text.to_owned()
}

/// The walk reads, and ends: the stream of hints does not, and what an event explains needs a stream, which is
/// tried with the operators' tests.
fn walks(template: &str, item: &Value) -> bool {
    let elsewhere = ["/v1/stream", "/ops/explain/leads/{board_id}/{item_id}"];
    // What is about the whole instance is for keys of no org, and is walked with one.
    let an_orgs = !template.starts_with("/ops/instance");
    item.get("get").is_some() && an_orgs && !elsewhere.contains(&template)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_and_every_error_has_the_form_of_the_document() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(40).await;
    reads.run(METRICS, 4).await;
    reads.run(USERS, 4).await;
    reads.run(LETTER, 1).await;
    let document = reads.api.page("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for (template, path) in document["paths"].as_object().unwrap() {
        if !walks(template, path) {
            continue;
        }
        let get = &path["get"];
        let mut url = template.clone();
        let mut pairs = Vec::new();
        for parameter in get["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            if parameter["in"] == "path" {
                url = url.replace(&format!("{{{name}}}"), &sample(name, &parameter["schema"]));
            } else if name != "cursor" {
                pairs.push((name.to_owned(), sample(name, &parameter["schema"])));
            }
        }
        let needed = if url == "/v1/search" { "?q=dana" } else { "?" };
        let mut urls = vec![format!("{url}{needed}")];
        urls.extend(pairs.iter().filter(|(name, _)| name != "q").map(|(name, value)| {
            // A span has two ends.
            let other = match name.as_str() {
                "from" => "&to=2026-02-01",
                "to" => "&from=2029-12-01",
                _ => "",
            };
            format!("{url}{needed}&{name}={value}{other}")
        }));
        for url in urls {
            let bearer = format!("Bearer {}", reads.key);
            let headers = [("authorization", bearer.as_str()), ("x-api-key", &reads.key)];
            let answer = reads.api.get(&url, &headers).await.unwrap();
            assert_eq!(answer.status, 200, "{url}: {answer:?}");
            let Some(schema) = get.pointer("/responses/200/content/application~1json/schema")
            else {
                continue;
            };
            let mut wrong = Vec::new();
            faults(&document, schema, &answer.json(), &url, &mut wrong);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
        let answer = reads.get(&format!("{url}?nonsense=1")).await;
        let wrong = if template.starts_with("/outcomes") { 401 } else { 400 };
        assert_eq!(answer.status, wrong, "{url}: {answer:?}");
        let form = answer.header("content-type").unwrap().replace('/', "~1");
        let schema = get.pointer(&format!("/responses/{wrong}/content/{form}/schema"));
        let mut found = Vec::new();
        faults(&document, schema.unwrap(), &answer.json(), &url, &mut found);
        assert!(found.is_empty(), "{found:#?}");
    }
    // What the page's script takes for granted of the document.
    for (path, operations) in document["paths"].as_object().unwrap() {
        let operation = operations.get("get").or(operations.get("post")).unwrap();
        assert!(
            operation["description"].is_string() && operation["parameters"].is_array(),
            "{path}"
        );
        let responses = &operation["responses"];
        let answer = responses.get("200").or(responses.get("202")).unwrap();
        let (form, content) = answer["content"].as_object().unwrap().iter().next().unwrap();
        assert!(content["schema"].is_object(), "{path} {form}");
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        assert!(schema["properties"].is_object(), "{name}");
    }
    let docs = reads.api.page("/docs").await;
    assert!(docs.body.contains(r#"get.responses["200"] ?? get.responses["202"]"#));
    assert_eq!(docs.status, 200);
    assert!(
        !docs.body.contains("http://") && !docs.body.contains("https://"),
        "nothing from outside"
    );
}
