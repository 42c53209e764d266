//! Nothing of one org is to be had with another's key: no row, no name, no cached answer, no tag; and
//! nothing of it can be changed.

use serde_json::Value;
use tests::{
    document::Document,
    generate::{Size, seeded_history},
    harness::{Answer, Projection, Service, Setup},
    rules::Rules,
};

use super::{
    fixture::{LETTER, Reads},
    live::Listener,
};

/// As the projector tells of a change.
const RAISED: &str = "
with raised as (update org_version set version = version + 1 where org_id = 'demo' returning version)
select pg_notify('leadpulse_version', 'demo:' || version) from raised";

/// A route of the document, with everything in it that one org owns.
struct Route<'d> {
    template: &'d str,
    post: bool,
    path: String,
}

impl Route<'_> {
    async fn ask(&self, api: &Service, key: Option<&str>, more: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {}", key.unwrap_or_default());
        let mut headers = more.to_vec();
        if let Some(key) = key {
            headers.extend([("authorization", bearer.as_str()), ("x-api-key", key)]);
        }
        match self.post {
            true => api.post(&self.path, &headers, "").await.unwrap(),
            false => api.get(&self.path, &headers).await.unwrap(),
        }
    }
}

fn routes<'d>(document: &'d Value, owned: &[(&str, String)]) -> Vec<Route<'d>> {
    let paths = document["paths"].as_object().unwrap();
    let routes = paths.iter().flat_map(|(template, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| {
            let mut path = template.clone();
            for (name, value) in owned {
                path = path.replace(&format!("{{{name}}}"), value);
            }
            path += match template.as_str() {
                "/v1/search" => "?q=lead+1",
                _ if template.ends_with("/retry") || template.ends_with("/skip") => {
                    "?reason=test&seq=1"
                }
                _ if method == "post" => "?reason=test",
                _ => "",
            };
            Route { template, post: method == "post", path }
        })
    });
    routes.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_of_the_document_shows_another_org_nothing_and_lets_it_change_nothing() {
    let mut projection = Projection::start(Setup::default()).await;
    let size = Size { items: 12, events: 200..201 };
    let now = chrono::Utc::now().timestamp_micros();
    projection.publish(&seeded_history(&Rules::default(), &size, now, 81)).await;
    projection.check().await;
    let pool = projection.ground.database.pool.clone();
    sqlx::query(LETTER).bind(4_i64).execute(&pool).await.unwrap();
    let (board, item, name): (i64, i64, String) = sqlx::query_as(
        "select board_id, item_id, name from lead_fact where lifecycle <> 'deleted' and name <> '' limit 1",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    let user: String = sqlx::query_scalar("select name from monday_user where name <> '' limit 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    let agent: i64 = sqlx::query_scalar("select agent_id from agent_metrics limit 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    let api = projection.ground.start("query-api").unwrap();
    api.wait_until_ready().await;
    let [mine, theirs] = ["demo", "other"].map(|org| projection.ground.create_key(org, &[]));
    let document = api.page("/openapi.json").await.json();
    let checked = Document::of(&api).await;
    let owned = [
        ("board_id", board.to_string()),
        ("item_id", item.to_string()),
        ("seq", "1".to_owned()),
        ("agent_id", agent.to_string()),
    ];
    let (item, agent) = (format!("\"item_id\":\"{item}\""), format!("\"agent_id\":\"{agent}\""));
    let words = [name.as_str(), &user, &item, &agent, "Dana", "Asia/"];
    let routes = routes(&document, &owned);
    assert!(routes.len() >= 40, "{}", routes.len());
    let mut changes = 0;
    for route in &routes {
        let Route { template, post, path } = route;
        let method = if *post { "POST" } else { "GET" };
        let anonymous = route.ask(&api, None, &[]).await;
        assert_eq!(anonymous.status, 401, "{path}");
        checked.check(method, path, &anonymous);
        if *template == "/v1/stream" {
            continue;
        }
        // Mine first, so that it is in every cache; what would change something is theirs to try alone.
        let of_the_instance = template.starts_with("/ops/instance");
        let mut tag = "\"none\"".to_owned();
        if !post {
            let answer = route.ask(&api, Some(&mine), &[]).await;
            assert_eq!(answer.status, if of_the_instance { 403 } else { 200 }, "{answer:?}");
            tag = answer.header("etag").unwrap_or(&tag).to_owned();
        }
        changes += usize::from(*post);
        let answer = route.ask(&api, Some(&theirs), &[("if-none-match", &tag)]).await;
        let expected = match (of_the_instance, template.contains('{')) {
            (true, _) => 403,
            (false, true) => 404,
            (false, false) => 200,
        };
        assert_eq!(answer.status, expected, "{path}: {answer:?}");
        for word in words {
            assert!(!answer.body.contains(word), "{path} tells {word}: {answer:?}");
        }
        checked.check(method, path, &answer);
    }
    assert!(changes >= 10, "{changes}");
    projection.check().await;
    let letters: i64 =
        sqlx::query_scalar("select count(*) from dead_letter").fetch_one(&pool).await.unwrap();
    assert_eq!(letters, 4);

    let mut own = Listener::open(&mine, &api, "/v1/stream", None).await;
    let mut foreign = Listener::open(&theirs, &api, "/v1/stream", None).await;
    sqlx::query(RAISED).execute(&pool).await.unwrap();
    assert!(own.next().await.contains("event: changed"));
    assert_eq!(foreign.next_within(std::time::Duration::from_secs(1)).await, None);
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
