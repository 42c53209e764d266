//! Who may read what, and what is said to who may not.

use tests::harness::{PATIENCE, wait_until};

use super::fixture::Reads;

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_or_with_a_wrong_one_nothing_is_told() {
    let reads = Reads::start(false, &[]).await;
    let anonymous = reads.api.page("/v1/leads").await;
    assert_eq!(anonymous.status, 401);
    assert_eq!(anonymous.header("www-authenticate"), Some("Bearer"));
    assert_eq!(anonymous.header("content-type"), Some("application/problem+json"));
    assert_eq!(anonymous.json()["request_id"].as_str(), anonymous.header("x-request-id"));
    let unknown = format!("lp_{}", "0".repeat(72));
    for key in ["", "lp_", unknown.as_str(), &reads.key[1..]] {
        assert_eq!(reads.get_as(key, "/v1/leads", &[]).await.status, 401, "{key}");
    }
    assert_eq!(reads.get("/v1/leads").await.status, 200);
    assert!(!reads.api.log_text().contains(&reads.key), "a key was logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scope_that_is_missing_is_named() {
    let reads = Reads::start(false, &[]).await;
    let key = reads.ground.create_key("demo", &["metrics:read"]);
    let refused = reads.get_as(&key, "/v1/leads", &[]).await;
    assert_eq!(refused.status, 403);
    assert!(refused.json()["detail"].as_str().unwrap().contains("leads:read"));
    assert_eq!(reads.get_as(&key, "/v1/agents/leaderboard", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_wrong_parameters_are_named_at_once_the_unknown_ones_too() {
    let reads = Reads::start(false, &[]).await;
    let answer = reads.get("/v1/leads?limit=0&order=up&agent=7&from=soon&min_seq=-1").await;
    assert_eq!(answer.status, 400);
    let mut named: Vec<String> = answer.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["parameter"].as_str().unwrap().to_owned())
        .collect();
    named.sort();
    assert_eq!(named, ["agent", "from", "limit", "min_seq", "order"]);
    assert_eq!(reads.get("/v1/nothing").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_fails_within_two_seconds_and_a_rotated_one_goes_on_for_a_while() {
    let reads = Reads::start(false, &[]).await;
    assert_eq!(reads.get("/v1/leads").await.status, 200);
    let prefix = &reads.key[..11];
    let rotated = reads.ground.run("query-api", &["keys", "rotate", prefix]);
    let new = String::from_utf8(rotated.stdout).unwrap().trim().to_owned();
    assert_eq!(reads.get_as(&new, "/v1/leads", &[]).await.status, 200);
    assert_eq!(reads.get("/v1/leads").await.status, 200, "within its grace");
    assert!(reads.ground.run("query-api", &["keys", "revoke", prefix]).status.success());
    let revoked = std::time::Instant::now();
    while reads.get("/v1/leads").await.status == 200 {
        assert!(revoked.elapsed().as_secs_f64() < 2.0, "the revoked key is still good");
    }
    assert_eq!(reads.get("/v1/leads").await.status, 401);
    let again = reads.ground.run("query-api", &["keys", "revoke", prefix]);
    assert_eq!(again.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_is_told_when_to_come_back_and_the_others_are_not() {
    let reads = Reads::start(false, &[("LEADPULSE_QUERY_API_RATE_LIMIT", "2")]).await;
    // Nothing is kept in memory before the versions are known.
    wait_until("an answer comes from memory", PATIENCE, async || {
        let answer = reads.get("/v1/leads?min_amount=0").await;
        answer.header("cache-status").is_some_and(|status| status.starts_with("memory; hit"))
    })
    .await;
    let mut statuses = Vec::new();
    for n in 1..15 {
        let answer = reads.get(&format!("/v1/leads?min_amount={n}")).await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
        } else {
            assert!(answer.header("ratelimit").unwrap().starts_with("\"key\";r="));
        }
        statuses.push(answer.status);
    }
    assert!(statuses.starts_with(&[200; 5]) && statuses.contains(&429), "{statuses:?}");
    assert_eq!(
        reads.get("/v1/leads?min_amount=0").await.status,
        200,
        "from memory it costs nothing"
    );
    let other = reads.ground.create_key("demo", &[]);
    assert_eq!(reads.get_as(&other, "/v1/leads?min_amount=99", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_org_has_a_limit_over_all_its_keys() {
    let limits =
        [("LEADPULSE_QUERY_API_RATE_LIMIT", "1000"), ("LEADPULSE_QUERY_API_ORG_RATE_LIMIT", "2")];
    let reads = Reads::start(false, &limits).await;
    let second = reads.ground.create_key("demo", &[]);
    let mut statuses = Vec::new();
    for n in 1..20 {
        let key = if n % 2 == 0 { &reads.key } else { &second };
        statuses.push(reads.get_as(key, &format!("/v1/leads?min_amount={n}"), &[]).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
    let other = reads.ground.create_key("other", &[]);
    assert_eq!(reads.get_as(&other, "/v1/leads?min_amount=99", &[]).await.status, 200);
}
