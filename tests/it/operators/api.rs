//! `/ops`: the same reports over HTTP, for the key's own org and nobody else's.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{
    document::Document,
    harness::{Answer, PATIENCE, Projection, Service, Setup, eventually},
};

use super::{history, json, last_audit, setup};

async fn ask(api: &Service, method: &str, key: &str, path: &str) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str())];
    let answer = match method {
        "POST" => api.post(path, &headers, "").await.unwrap(),
        _ => api.get(path, &headers).await.unwrap(),
    };
    Document::of(api).await.check(method, path, &answer);
    answer
}

/// The API over a projection that has one dead letter, put there by hand.
async fn beside_a_letter(projection: &Projection) -> Service {
    let api = projection.ground.start("query-api").unwrap();
    api.wait_until_ready().await;
    sqlx::query(
        "insert into dead_letter (projection, stream_created_at, seq, org_id, board_id, item_id, event_id, kind,
             reason, payload)
         select 'main', min(stream_created_at), 1, 'demo', 9001, 1, 'e', 'update_name', 'by hand', '{}'
         from checkpoint",
    )
    .execute(&projection.ground.database.pool)
    .await
    .unwrap();
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_of_an_org_sees_and_mends_what_is_its_own_and_leaves_an_audit_row() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(10, 200, 81)).await;
    projection.check().await;
    let api = projection.ground.start("query-api").unwrap();
    api.wait_until_ready().await;
    let writer = projection.ground.create_key("demo", &["ops:read", "ops:write", "leads:read"]);
    let reader = projection.ground.create_key("demo", &["ops:read", "leads:read"]);
    let other = projection.ground.create_key("other", &[]);

    let status = ask(&api, "GET", &reader, "/ops/status").await.json();
    assert_eq!(status["findings"], json!([]), "{status}");
    assert_eq!(status["projection"]["applied_seq"], projection.last_seq());

    let (board, item) = *projection.leads().await.keys().next().unwrap();
    let explain = format!("/ops/explain/leads/{board}/{item}");
    let explained = ask(&api, "GET", &reader, &explain).await.json();
    assert_eq!(
        (&explained["agrees"], &explained["item_id"]),
        (&json!(true), &json!(item.to_string()))
    );
    assert_eq!(ask(&api, "GET", &other, &explain).await.status, 404);

    sqlx::query("update lead_fact set name = 'wrong' where (board_id, item_id) = ($1, $2)")
        .bind(board)
        .bind(item)
        .execute(&projection.ground.database.pool)
        .await
        .unwrap();
    let rebuild = format!("/ops/leads/{board}/{item}/rebuild");
    // The report has the lead's name in it, and so has what is kept of it.
    let blind = projection.ground.create_key("demo", &["ops:read", "ops:write"]);
    assert_eq!(ask(&api, "POST", &blind, &format!("{rebuild}?dry_run=true")).await.status, 403);
    assert_eq!(ask(&api, "GET", &writer, &rebuild).await.status, 405);
    assert_eq!(ask(&api, "POST", &reader, &rebuild).await.status, 403);
    assert_eq!(ask(&api, "POST", &other, &rebuild).await.status, 404);
    let planned = ask(&api, "POST", &writer, &format!("{rebuild}?dry_run=true")).await.json();
    assert_eq!(planned["lead_changes"][0]["fields"]["name"]["from"], "wrong");
    let done = ask(&api, "POST", &writer, &format!("{rebuild}?reason=seen")).await;
    assert_eq!(done.status, 200, "{done:?}");
    assert_eq!(done.json()["lead_changes"], planned["lead_changes"]);
    projection.check().await;
    let audit = last_audit(&projection);
    assert_eq!((&audit["command"], &audit["reason"]), (&json!("rebuild-lead"), &json!("seen")));
    assert!(audit["who"].as_str().unwrap().starts_with("key "));
    let own = ask(&api, "GET", &reader, "/ops/audit").await.json();
    assert_eq!(own["items"][0]["id"], audit["id"]);
    assert_eq!(own["items"][0]["result"]["leads"], 1);
    let unseen = ask(&api, "GET", &blind, "/ops/audit").await.json();
    assert_eq!(
        (&unseen["items"][0]["id"], &unseen["items"][0]["result"]),
        (&audit["id"], &Value::Null)
    );
    let theirs = ask(&api, "GET", &other, "/ops/audit").await.json();
    assert_eq!(theirs["items"], json!([]), "{theirs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letters_of_another_org_are_neither_seen_nor_touched() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(5, 60, 82)).await;
    projection.check().await;
    let api = beside_a_letter(&projection).await;
    let all = projection.ground.create_key("demo", &[]);
    let blind = projection.ground.create_key("demo", &["ops:read", "ops:write"]);
    let other = projection.ground.create_key("other", &[]);
    let list = ask(&api, "GET", &blind, "/ops/dead-letters").await.json();
    assert_eq!(
        (&list["items"][0]["letters"], &list["items"][0]["board_id"]),
        (&json!(1), &json!("9001"))
    );
    assert_eq!(ask(&api, "GET", &other, "/ops/dead-letters").await.json()["items"], json!([]));
    let boards = "/ops/dead-letters?board_id=9001&board_id=9002";
    assert_eq!(
        ask(&api, "GET", &blind, boards).await.status,
        400,
        "one board, as the document says"
    );
    let seqs = ask(&api, "GET", &blind, "/ops/dead-letters?seq=1&seq=2").await.json();
    assert_eq!(seqs["items"][0]["letters"], 1);
    let document = api.page("/openapi.json").await.json();
    let parameters =
        document["paths"]["/ops/dead-letters"]["get"]["parameters"].as_array().unwrap();
    let kind = |name: &str| {
        let parameter = parameters.iter().find(|parameter| parameter["name"] == name).unwrap();
        parameter["schema"]["type"].clone()
    };
    assert_eq!((kind("board_id"), kind("seq")), (json!("string"), json!("array")));
    assert_eq!(ask(&api, "GET", &other, "/ops/dead-letters/1").await.status, 404);
    assert!(ask(&api, "GET", &blind, "/ops/dead-letters/1").await.json()["payload"].is_null());
    assert_eq!(ask(&api, "GET", &all, "/ops/dead-letters/1").await.json()["payload"], json!({}));
    let skip = "/ops/dead-letters/skip?seq=1";
    assert_eq!(ask(&api, "POST", &blind, skip).await.status, 400, "a reason is needed");
    let skip = format!("{skip}&reason=test");
    assert_eq!(ask(&api, "POST", &other, &skip).await.json()["letters"], 0);
    let count = "/ops/dead-letters/retry?dry_run=true&reason=test";
    let count = ask(&api, "POST", &blind, count).await.json();
    assert_eq!(count, json!({ "letters": 1, "leads": 1 }));
    assert_eq!(ask(&api, "POST", &blind, &skip).await.json()["letters"], 1);
    assert_eq!(json(&projection, 0, &["dead-letters", "list"]), json!([]));
}

/// The projector answers only after the client has gone away; what it asked for is done and written down.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_begun_is_done_to_its_end_also_for_a_client_that_goes_away() {
    // A frozen owner must not lose its lease at once.
    let ttl = ("LEADPULSE_PROJECTOR_LEASE_TTL_MS".to_owned(), "20000".to_owned());
    let projection = Projection::start(Setup { environment: vec![ttl], ..setup() }).await;
    projection.settle().await;
    let api = beside_a_letter(&projection).await;
    let key = projection.ground.create_key("demo", &["ops:write"]);
    projection.projector.signal("STOP");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_millis(700)).build();
    let retry = client.unwrap().post(format!("{}/ops/dead-letters/retry?reason=test", api.url()));
    assert!(retry.bearer_auth(&key).send().await.unwrap_err().is_timeout());
    let begun = last_audit(&projection);
    assert_eq!(
        (&begun["command"], &begun["reason"], &begun["ended_at"]),
        (&json!("dead-letters retry"), &json!("test"), &Value::Null)
    );
    projection.projector.signal("CONT");
    let ended = eventually("the retry is written down", PATIENCE, async || {
        let audit = last_audit(&projection);
        audit["ended_at"].is_string().then_some(audit)
    })
    .await;
    assert_eq!((&ended["succeeded"], &ended["result"]["applied"]), (&json!(true), &json!(1)));
}
