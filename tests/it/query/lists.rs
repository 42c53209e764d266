//! The other lists: agents, users, search, meta; and the figures by time, industry and for the earlier product.

use serde_json::{Value, json};
use tests::harness::{PATIENCE, wait_until};

use super::fixture::{METRICS, Reads, USERS};

fn texts(answer: &Value, field: &str) -> Vec<String> {
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|item| item[field].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_come_with_all_windows_page_by_page() {
    let reads = Reads::start(false, &[]).await;
    reads.run(METRICS, 4).await;
    reads.run(USERS, 4).await;
    let first = reads.read("/v1/agents?limit=3").await;
    assert_eq!(texts(&first, "agent_id"), ["7001", "7002", "7003"]);
    assert_eq!(first["items"][0]["windows"].as_array().unwrap().len(), 3);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = reads.read(&format!("/v1/agents?limit=3&cursor={cursor}")).await;
    assert_eq!(
        (texts(&second, "agent_id"), &second["next_cursor"]),
        (vec!["7004".to_owned()], &Value::Null)
    );
    assert_eq!(texts(&reads.read("/v1/agents?q=DAN").await, "agent_id"), ["7001", "7003"]);
    let beginning = reads.read("/v1/agents?q=da").await;
    assert_eq!(texts(&beginning, "agent_id"), ["7001", "7003"]);
    let inside = reads.read("/v1/agents?q=vi").await;
    assert_eq!(texts(&inside, "agent_id"), [""; 0], "two letters: prefix only");
    let one = reads.read("/v1/agents/7003").await;
    assert_eq!(one["agent_name"], "Danny 50%");
    assert_eq!(one["windows"][2]["window_days"], 90);
    assert_eq!(reads.get("/v1/agents/1").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_show_their_mail_only_to_who_may_see_it() {
    let reads = Reads::start(false, &[]).await;
    reads.run(USERS, 4).await;
    let all = reads.read("/v1/users?ids=7001,7003&ids=7004").await;
    assert_eq!(texts(&all, "user_id"), ["7001", "7003", "7004"]);
    assert_eq!(all["items"][0]["email"], "a@example.com");
    assert_eq!(texts(&reads.read("/v1/users?q=levi").await, "user_id"), ["7001"]);
    assert_eq!(texts(&reads.read("/v1/users?q=vi").await, "user_id"), [""; 0]);
    assert_eq!(texts(&reads.read("/v1/users?q=a").await, "user_id"), ["7004"]);
    let key = reads.ground.create_key("demo", &["users:read"]);
    let without = reads.get_as(&key, "/v1/users?ids=7001,7003&ids=7004", &[]).await;
    assert!(!without.body.contains("example.com"), "{without:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn search_finds_exact_then_prefix_then_parts_with_and_without_points() {
    let reads = Reads::start(false, &[]).await;
    reads.run(USERS, 4).await;
    // The fourth never had a lead: no agent, and his name is for who may read users.
    reads.run(METRICS, 3).await;
    reads.fill(120).await;
    assert_eq!(texts(&reads.read("/v1/search?q=avi").await, "agent_id"), [""; 0]);
    let hits = reads.read("/v1/search?q=lead+12&types=lead&limit=3").await;
    assert_eq!(texts(&hits, "name"), ["Lead 12", "Lead 120"]);
    assert_eq!(texts(&hits, "match"), ["exact", "prefix"]);
    let parts = reads.read("/v1/search?q=ead+12").await;
    assert_eq!(texts(&parts, "match"), ["trigram", "trigram"]);
    let pointed = reads.read("/v1/search?q=%D7%93%D7%A0%D7%94").await;
    assert_eq!(texts(&pointed, "agent_id"), ["7002"]);
    assert_eq!(texts(&reads.read("/v1/search?q=da").await, "agent_id"), ["7001", "7003"]);
    assert_eq!(
        texts(&reads.read("/v1/search?q=ev").await, "name"),
        [""; 0],
        "two letters: prefix only"
    );
    assert_eq!(texts(&reads.read("/v1/search?q=0%25").await, "name"), [""; 0]);
    assert_eq!(texts(&reads.read("/v1/search?q=+50%25").await, "agent_id"), ["7003"]);
    assert_eq!(reads.get("/v1/search").await.status, 400);
    // Letters that Rust and Postgres could each make small in a way of their own.
    reads.run("update lead_fact set name = 'İZMİR ΟΔΟΣ' where item_id = $1", 12).await;
    let name = "%C4%B0ZM%C4%B0R+%CE%9F%CE%94%CE%9F%CE%A3";
    let hits = reads.read(&format!("/v1/search?q={name}&types=lead")).await;
    assert_eq!(texts(&hits, "match"), ["exact"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_better_hit_stands_before_a_worse_one_whatever_it_is() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(6).await;
    reads.run(USERS, 5).await;
    reads.run(METRICS, 5).await;
    reads
        .run(
            "update monday_user set name = (array['Acme', 'Acme Zoe', 'Acme Avi', 'The Acme', 'Big Acme'])[user_id - 7000]
             where user_id > $1",
            0,
        )
        .await;
    reads
        .run(
            "update lead_fact set lifecycle = 'active',
                 name = (array['ACME', 'Acme', 'Acme Ltd', 'An Acme', 'Acme Avi', 'Other'])[item_id] where item_id > $1",
            0,
        )
        .await;
    let hits = reads.read("/v1/search?q=acme&limit=20").await;
    let found: Vec<_> = ["match", "name", "type"].map(|field| texts(&hits, field)).into();
    let told: Vec<String> =
        (0..found[0].len()).map(|n| [0, 1, 2].map(|f| found[f][n].as_str()).join(" ")).collect();
    let expected = [
        "exact Acme agent",
        "exact Acme lead",
        "exact ACME lead",
        "prefix Acme Avi agent",
        "prefix Acme Avi lead",
        "prefix Acme Ltd lead",
        "prefix Acme Zoe agent",
        "trigram An Acme lead",
        "trigram Big Acme agent",
        "trigram The Acme agent",
    ];
    assert_eq!(told, expected);
    for limit in 1..10 {
        let cut = reads.read(&format!("/v1/search?q=acme&limit={limit}")).await;
        assert_eq!(texts(&cut, "match"), found[0][..limit], "{limit}");
        assert_eq!(texts(&cut, "name"), found[1][..limit], "{limit}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn meta_lists_no_more_than_a_thousand_and_says_so() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(1100).await;
    let whole = reads.read("/v1/meta").await;
    assert_eq!(
        (&whole["statuses_complete"], &whole["industries_complete"]),
        (&json!(true), &json!(true))
    );
    reads
        .run(
            "update lead_fact set lifecycle = 'active', status_id = item_id, industry = 'i' || item_id
             where item_id > $1",
            50,
        )
        .await;
    reads.publish().await;
    wait_until("they are cut", PATIENCE, async || {
        reads.read("/v1/meta").await["statuses_complete"] == false
    })
    .await;
    let cut = reads.read("/v1/meta").await;
    assert_eq!(cut["industries_complete"], false);
    let (statuses, industries) = (cut["statuses"].as_array(), cut["industries"].as_array());
    assert_eq!((statuses.unwrap().len(), industries.unwrap().len()), (1000, 1000));
    assert!(industries.unwrap().contains(&json!("finance")), "those of the most leads stay");
    let of_one = |status: &&Value| status["leads"] == 1;
    let common = statuses.unwrap().iter().filter(|status| !of_one(status)).count();
    assert_eq!(common, 2, "both boards have leads of one status");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_without_a_letter_is_refused_and_not_every_name() {
    let reads = Reads::start(false, &[]).await;
    reads.run(USERS, 4).await;
    // A Hebrew point is left out of the form that names are compared in.
    for list in ["leads", "agents", "users", "search"] {
        let refused = reads.get(&format!("/v1/{list}?q=%D6%B8")).await;
        assert_eq!(refused.status, 400, "{list}: {refused:?}");
        assert_eq!(refused.json()["errors"][0]["parameter"], "q");
    }
    let nowhere = reads.get("/v1/leads/%FF/1").await;
    assert_eq!(nowhere.header("content-type"), Some("application/problem+json"), "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_series_has_a_point_for_every_day_of_the_org_also_the_empty_ones() {
    let reads = Reads::start(false, &[]).await;
    // Three leads of one local day in Asia/Jerusalem, whose midnight is at 22:00 UTC in winter.
    reads
        .run(
            "insert into lead_fact (org_id, board_id, item_id, assigned_user_id, entered_at, entered_source, state,
                 lifecycle, last_event_at, last_seq, fold_state)
             select 'demo', 9001, n, 7000 + n, at::timestamptz, 'created', 'open', 'active', now(), 1, ''
             from unnest(array['2026-01-05T22:00:00Z', '2026-01-06T12:00:00Z', '2026-01-06T21:59:59.999999Z'])
                 with ordinality as lead (at, n) where n <= $1",
            3,
        )
        .await;
    let path = "/v1/kpis/timeseries?from=2026-01-05&to=2026-01-08&metric=assigned_count";
    let days = reads.read(path).await;
    let points = days["series"][0]["points"].as_array().unwrap();
    let counts: Vec<_> =
        points.iter().map(|point| (&point["bucket"], &point["assigned_count"])).collect();
    assert_eq!(
        counts,
        [
            (&json!("2026-01-05"), &json!(0)),
            (&json!("2026-01-06"), &json!(3)),
            (&json!("2026-01-07"), &json!(0))
        ]
    );
    assert_eq!(points[1]["start"], "2026-01-05T22:00:00.000000Z");
    assert_eq!(points[1]["partial"], false);
    let agents = reads.read(&format!("{path}&group_by=agent&bucket=month")).await;
    assert_eq!(agents["series"].as_array().unwrap().len(), 3);
    assert_eq!(agents["series"][2]["group"], "7003");
    let running = reads.read("/v1/kpis/timeseries?bucket=week").await;
    assert_eq!(running["series"][0]["points"].as_array().unwrap().last().unwrap()["partial"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn industries_meta_and_the_earlier_product_read_the_same_leads() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(90).await;
    let industries = reads.read("/v1/industries?window=7d").await;
    assert_eq!(texts(&industries, "industry").len(), 3);
    let meta = reads.read("/v1/meta").await;
    assert_eq!(meta["industries"], json!(["finance", "health", "unknown"]));
    assert_eq!(meta["time_zone"], "Asia/Jerusalem");
    assert_eq!(meta["windows"], json!(["7d", "30d", "90d"]));
    let key = [("x-api-key", reads.key.as_str())];
    let old = reads.api.get("/outcomes/summary?windowDays=7", &key).await.unwrap();
    assert_eq!(old.status, 200, "{old:?}");
    let old = old.json();
    assert_eq!(old["ok"], true);
    let summary = reads.read("/v1/kpis/summary?window=7d").await;
    assert_eq!(old["kpis"]["assigned"], summary["current"]["assigned_count"]);
    assert_eq!(old["kpis"]["closedWon"], summary["current"]["cohort_won_count"]);
    assert_eq!(old["perAgent"].as_array().unwrap().len(), 10);
    let per_agent: i64 = old["perAgent"]
        .as_array()
        .unwrap()
        .iter()
        .map(|agent| agent["assigned"].as_i64().unwrap())
        .sum();
    assert_eq!(old["kpis"]["assigned"], per_agent);
    for wrong in ["windowDays=8", "mode=x", "boardId=x", "other=1"] {
        let refused = reads.api.get(&format!("/outcomes/summary?{wrong}"), &key).await.unwrap();
        assert_eq!((refused.status, &refused.json()["ok"]), (400, &json!(false)), "{wrong}");
    }
    let unknown = reads.api.page("/outcomes/summary").await;
    assert_eq!((unknown.status, &unknown.json()["ok"]), (401, &json!(false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_earlier_products_answers_are_cached_limited_and_wait_like_the_others() {
    let reads = Reads::start(false, &[("LEADPULSE_QUERY_API_RATE_LIMIT", "2")]).await;
    reads.fill(9).await;
    reads.applied(5).await;
    let get = async |path: &str, more: &[(&str, &str)]| {
        let headers = [&[("x-api-key", reads.key.as_str())], more].concat();
        reads.api.get(path, &headers).await.unwrap()
    };
    let path = "/outcomes/summary?windowDays=7";
    let first = get(path, &[]).await;
    assert_eq!((first.status, first.header("leadpulse-seq")), (200, Some("5")), "{first:?}");
    let second = get(path, &[("if-none-match", first.header("etag").unwrap())]).await;
    assert_eq!((second.status, second.body.as_str()), (304, ""));
    assert!(second.header("cache-status").unwrap().starts_with("memory; hit"), "{second:?}");
    let behind = get("/outcomes/summary?min_seq=6", &[]).await;
    assert_eq!((behind.status, &behind.json()["ok"]), (503, &json!(false)));
    let mut refused = behind;
    for board in 0..100 {
        refused = get(&format!("/outcomes/summary?boardId={board}"), &[]).await;
        if refused.status == 429 {
            break;
        }
    }
    assert_eq!((refused.status, &refused.json()["ok"]), (429, &json!(false)));
    assert!(refused.header("retry-after").is_some() && refused.header("ratelimit").is_some());
}
