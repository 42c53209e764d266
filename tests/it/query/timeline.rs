//! What happened to a lead, as it stands in the stream of record.

use serde_json::Value;
use tests::harness::App;

const USER: &str = r#"{"app":"monday","type":"user_snapshot","user_id":"7001","name":"Dana Levi","email":"d@example.com","kind":"member","status":"active","triggerUuid":"u","subscriptionId":1,"triggerTime":"2026-03-02T09:00:00Z"}"#;

/// An event on item 42, so many seconds after ten o'clock.
fn event(second: u32, kind: &str, user: i64, rest: &str) -> String {
    format!(
        r#"{{"app":"monday","type":"{kind}","userId":{user},"boardId":9001,"pulseId":42,"triggerUuid":"{second:08}",
            "subscriptionId":1,"triggerTime":"2026-03-02T10:00:{second:02}Z","isRetry":false,{rest}}}"#
    )
}

fn status(second: u32, index: u32, text: &str) -> String {
    let rest =
        format!(r#""columnId":"status","value":{{"label":{{"index":{index},"text":"{text}"}}}}"#);
    event(second, "update_column_value", 7001, &rest)
}

fn told(item: &Value) -> (String, String) {
    let text = |name: &str| item[name].as_str().unwrap_or("-").to_owned();
    (text("what"), text("to"))
}

async fn by_pages(app: &App, path: &str, limit: u32, seq: u64) -> Vec<Value> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get_at(&format!("{path}?limit={limit}{cursor}"), seq).await.json();
        items.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next_cursor"].as_str() else { return items };
        cursor = format!("&cursor={next}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeline_tells_what_happened_in_its_order_and_who_did_it() {
    let mut app = App::start().await;
    let person = r#""columnId":"person","value":{"personsAndTeams":[{"id":7001,"kind":"person"}]}"#;
    // They arrive in another order than they happened in, and one of them twice.
    let events = [
        USER.to_owned(),
        status(40, 2, "Won"),
        event(0, "create_pulse", -4, r#""pulseName":"Acme","groupId":"topics""#),
        event(10, "update_column_value", 7001, person),
        status(20, 1, "Contacted"),
        status(20, 1, "Contacted"),
        event(
            30,
            "update_column_value",
            7002,
            r#""columnId":"numbers","value":{"value":12500.50}"#,
        ),
        status(55, 5, "Working"),
    ];
    let mut seq = 0;
    for event in &events {
        seq = app.ingest.deliver(event).await.seq;
    }
    let path = "/v1/leads/9001/42/timeline";
    let timeline = app.get_at(path, seq).await.json();
    let items = timeline["items"].as_array().unwrap();
    let found: Vec<(String, String)> = items.iter().map(told).collect();
    let expected = [
        ("created", "-"),
        ("renamed", "Acme"),
        ("moved", "topics"),
        ("assigned", "7001"),
        ("status_changed", "Contacted"),
        ("touched", "2026-03-02T10:00:20.000000Z"),
        ("amount_changed", "12500.5"),
        ("status_changed", "Won"),
        ("won", "won"),
        ("status_changed", "Working"),
        ("reopened", "open"),
    ];
    let expected: Vec<_> = expected.map(|(what, to)| (what.to_owned(), to.to_owned())).into();
    assert_eq!(found, expected);
    assert_eq!(items[0]["actor_id"], Value::Null, "an automation created it");
    assert_eq!(items[0]["seconds_since_previous"], Value::Null);
    assert_eq!((&items[3]["actor_name"], &items[3]["seq"]), (&"Dana Levi".into(), &4.into()));
    assert_eq!(items[3]["seconds_since_previous"], 10.0);
    assert_eq!(items[6]["actor_name"], "7002", "an unknown user shows as its id");
    assert_eq!(timeline["complete"], true);

    assert_eq!(&by_pages(&app, path, 3, seq).await, items, "page by page it is the same");

    // Events of one instant stand in the order of their ids, not of their arrival.
    for n in 0..8_u32 {
        let amount = format!(r#""columnId":"numbers","value":{{"value":{n}}}"#);
        let same = event(58, "update_column_value", 7002, &amount);
        let another = format!("{:08}", 97 * (n + 3) % 1000);
        seq = app.ingest.deliver(&same.replace("00000058", &another)).await.seq;
    }
    let whole = app.get_at(&format!("{path}?limit=200"), seq).await.json();
    let whole = whole["items"].as_array().unwrap();
    assert!(whole.windows(2).any(|two| two[0]["seq"].as_u64() > two[1]["seq"].as_u64()));
    for limit in [1, 2, 3] {
        assert_eq!(&by_pages(&app, path, limit, seq).await, whole, "{limit} a page");
    }

    let other = app.ground.create_key("other", &[]);
    let bearer = format!("Bearer {other}");
    let theirs = app.query_api.get(path, &[("authorization", &bearer)]).await.unwrap();
    assert_eq!(theirs.status, 404);

    app.ground.nats.kill9();
    assert_eq!(app.get("/v1/leads/9001/42").await.status, 200);
    let unread = app.get(&format!("{path}?limit=7")).await;
    assert_eq!(unread.status, 503, "the record can't be read: {unread:?}");
}
