//! Who may read what, and what is said to who may not.

use tests::{
    document::Document,
    harness::{PATIENCE, wait_until},
};

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
    loop {
        let sent = revoked.elapsed().as_secs_f64();
        if reads.get("/v1/leads").await.status != 200 {
            break;
        }
        assert!(sent < 2.0, "the revoked key is still good");
    }
    assert_eq!(reads.get("/v1/leads").await.status, 401);
    let again = reads.ground.run("query-api", &["keys", "revoke", prefix]);
    assert_eq!(again.status.code(), Some(1));
}

/// Its last use is due to be noted, which is a write.
#[tokio::test(flavor = "multi_thread")]
async fn who_holds_the_row_of_a_key_keeps_no_request_waiting() {
    let reads = Reads::start(false, &[]).await;
    let other = reads.ground.create_key("demo", &[]);
    reads.run("update api_key set last_used_at = now() - $1 * interval '1 hour'", 1).await;
    let mut held = reads.ground.database.pool.begin().await.unwrap();
    sqlx::query("select from api_key for update").execute(&mut *held).await.unwrap();
    let began = std::time::Instant::now();
    let mut slowest = std::time::Duration::ZERO;
    while began.elapsed().as_secs() < 4 {
        for key in [&reads.key, &other] {
            let started = std::time::Instant::now();
            assert_eq!(reads.get_as(key, "/v1/leads", &[]).await.status, 200);
            slowest = slowest.max(started.elapsed());
        }
    }
    held.rollback().await.unwrap();
    wait_until("the use is noted", PATIENCE, async || {
        assert_eq!(reads.get("/v1/leads").await.status, 200);
        let noted =
            "select last_used_at > now() - interval '1 minute' from api_key where prefix = $1";
        let prefix = &reads.key[..11];
        sqlx::query_scalar(noted).bind(prefix).fetch_one(&reads.ground.database.pool).await.unwrap()
    })
    .await;
    assert!(slowest.as_secs() < 2, "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_too_much_is_told_when_to_come_back_and_the_others_are_not() {
    let reads = Reads::start(false, &[("LEADPULSE_QUERY_API_RATE_LIMIT", "2")]).await;
    let document = Document::of(&reads.api).await;
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
            assert!(answer.header("ratelimit").unwrap().starts_with("\"key\";r=0, \"org\";r="));
            document.check("GET", "/v1/leads", &answer);
        }
        assert!(answer.header("ratelimit").unwrap().starts_with("\"key\";r="), "{answer:?}");
        let policy = answer.header("ratelimit-policy");
        assert_eq!(policy, Some("\"key\";q=10;w=5, \"org\";q=400000;w=5"));
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
    // To count exactly costs twenty points, which are more than all that this bucket holds.
    let counts = reads.ground.create_key("demo", &[]);
    let counted = reads.get_as(&counts, "/v1/leads?count=exact&min_amount=98", &[]).await;
    assert!(counted.header("ratelimit").unwrap().starts_with("\"key\";r=0, "), "{counted:?}");
    // A key of the whole instance has no org's bucket.
    let instance = reads.ground.create_instance_key();
    let answer = reads.get_as(&instance, "/ops/instance/checkpoint", &[]).await;
    assert_eq!((answer.status, answer.header("ratelimit")), (200, Some("\"key\";r=0")));
    let operator = reads.ground.create_key("demo", &["ops:read"]);
    let answer = reads.get_as(&operator, "/ops/audit", &[]).await;
    assert!(
        answer.header("ratelimit").unwrap().starts_with("\"key\";r=0, \"org\";r="),
        "{answer:?}"
    );
    let refused = reads.get_as(&instance, "/ops/instance/checkpoint", &[]).await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"key\";q=10;w=5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_has_ended_is_not_rotated_and_a_new_one_lives_as_long_as_the_old_was_to() {
    let reads = Reads::start(false, &[]).await;
    let pool = &reads.ground.database.pool;
    let prefix = &reads.key[..11];
    sqlx::query(
        "update api_key set created_at = now() - interval '90 days', expires_at = now() + interval '10 days'
         where prefix = $1",
    )
    .bind(prefix)
    .execute(pool)
    .await
    .unwrap();
    let rotated = reads.ground.run("query-api", &["keys", "rotate", prefix]);
    assert!(rotated.status.success(), "{rotated:?}");
    let new = String::from_utf8(rotated.stdout).unwrap().trim()[..11].to_owned();
    let left = "select round(extract(epoch from expires_at - now()) / 3600)::bigint from api_key where prefix = $1";
    let left = async |prefix: &str| {
        sqlx::query_scalar::<_, i64>(left).bind(prefix.to_owned()).fetch_one(pool).await.unwrap()
    };
    assert_eq!((left(&new).await, left(prefix).await), (100 * 24, 24));

    let keys = async || -> i64 {
        sqlx::query_scalar("select count(*) from api_key").fetch_one(pool).await.unwrap()
    };
    let before = keys().await;
    reads.run("update api_key set expires_at = now() - $1 * interval '1 minute'", 1).await;
    let refused = reads.ground.run("query-api", &["keys", "rotate", prefix]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    // Nor is an old key shortened where no new one can be made.
    reads.run("update api_key set expires_at = null where $1 > 0", 1).await;
    let constraint = "alter table api_key add constraint full_up check (created_at < now() - interval '1 s') not valid";
    sqlx::raw_sql(constraint).execute(pool).await.unwrap();
    let failed = reads.ground.run("query-api", &["keys", "rotate", prefix]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let good: i64 = sqlx::query_scalar("select count(*) from api_key where expires_at is null")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!((keys().await, good), (before, before));
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
