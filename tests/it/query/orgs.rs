//! Nothing of one org is to be had with another's key: no row, no name, no cached answer, no tag.

use super::fixture::{LETTER, METRICS, Reads, USERS, walks};

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_document_shows_another_org_nothing() {
    let reads = Reads::start(true, &[]).await;
    reads.fill(40).await;
    reads.run(METRICS, 4).await;
    reads.run(USERS, 4).await;
    reads.run(LETTER, 1).await;
    let other = reads.ground.create_key("other", &[]);
    let document = reads.api.page("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 17, "{paths:?}");
    for (template, item) in paths {
        if !walks(template, item) {
            continue;
        }
        let path = template
            .replace("{board_id}", "9002")
            .replace("{item_id}", "1")
            .replace("{seq}", "1")
            .replace("{agent_id}", "7001");
        let query = if path == "/v1/search" { "?q=lead+1" } else { "" };
        let path = format!("{path}{query}");
        let old = path.starts_with("/outcomes");
        let as_key = |key: &str| match old {
            true => ("x-api-key", key.to_owned()),
            false => ("authorization", format!("Bearer {key}")),
        };
        // Mine first, so that it is in every cache.
        let (name, value) = as_key(&reads.key);
        let mine = reads.api.get(&path, &[(name, &value)]).await.unwrap();
        assert_eq!(mine.status, 200, "{path}: {mine:?}");
        let tag = mine.header("etag").unwrap_or("\"none\"").to_owned();
        let (name, value) = as_key(&other);
        let theirs =
            reads.api.get(&path, &[(name, &value), ("if-none-match", &tag)]).await.unwrap();
        assert!(matches!(theirs.status, 200 | 404), "{path}: {theirs:?}");
        if template.contains('{') {
            assert_eq!(theirs.status, 404, "{path}");
        }
        for word in ["Lead ", "7001", "Dana", "example.com", "finance", "Asia/"] {
            assert!(!theirs.body.contains(word), "{path} tells {word}: {theirs:?}");
        }
        let anonymous = reads.api.page(&path).await;
        assert_eq!(anonymous.status, 401, "{path}");
    }
}

/// Nor of any org with a key of the whole instance, which is good for the operators' commands alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_the_instance_reads_no_org() {
    let reads = Reads::start(false, &[]).await;
    let key = reads.ground.create_instance_key();
    let document = reads.api.page("/openapi.json").await.json();
    for (template, item) in document["paths"].as_object().unwrap() {
        if template.starts_with("/ops/instance") {
            continue;
        }
        let path = template.replace("{board_id}", "9002").replace("{item_id}", "1");
        let path = path.replace("{seq}", "1").replace("{agent_id}", "7001");
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("x-api-key", key.as_str())];
        let refused = match item.get("post") {
            Some(_) => reads.api.post(&path, &headers, "").await.unwrap(),
            None => reads.api.get(&path, &headers).await.unwrap(),
        };
        assert_eq!(refused.status, 403, "{path}: {refused:?}");
    }
    assert_eq!(reads.get_as(&key, "/ops/instance/checkpoint", &[]).await.status, 200);
    // The table itself keeps the two kinds of keys apart.
    for sql in [
        "update api_key set scopes = array['ops:instance', 'leads:read'] where org_id is null",
        "update api_key set scopes = array['leads:read'] where org_id is null",
        "update api_key set scopes = scopes || array['ops:instance'] where org_id is not null",
    ] {
        sqlx::query(sql).execute(&reads.ground.database.pool).await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_route_wants_its_scope() {
    let reads = Reads::start(false, &[]).await;
    let writer = reads.ground.create_key("demo", &["ops:write"]);
    let reader = reads.ground.create_key("demo", &["ops:read", "leads:read"]);
    let document = reads.api.page("/openapi.json").await.json();
    for (template, item) in document["paths"].as_object().unwrap() {
        let path = template
            .replace("{board_id}", "9002")
            .replace("{item_id}", "1")
            .replace("{seq}", "1")
            .replace("{agent_id}", "7001")
            .replace("{id}", "1");
        // What is read needs more than a key to write, what is written more than one to read.
        let post = item.get("post").is_some();
        let key = if post { &reader } else { &writer };
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", bearer.as_str()), ("x-api-key", key.as_str())];
        let refused = match post {
            true => reads.api.post(&path, &headers, "").await.unwrap(),
            false => reads.api.get(&path, &headers).await.unwrap(),
        };
        assert_eq!(refused.status, 403, "{path}: {refused:?}");
    }
}
