//! What is asked again in the same words is answered before the router, and nobody can tell.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tests::harness::{Answer, PATIENCE, wait_until};

use super::fixture::Reads;

/// How many requests were answered in front, a second after the last of them.
async fn answered_in_front(reads: &Reads) -> u64 {
    let page = reads.api.page("/metrics").await.body;
    let line = page.lines().find_map(|l| l.strip_prefix("query_api_answered_in_front_total "));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Asks until it is answered in front.
async fn ask_until_in_front(reads: &Reads, path: &str, more: &[(&str, &str)]) {
    let before = answered_in_front(reads).await;
    wait_until("it is answered in front of the router", PATIENCE, async || {
        for _ in 0..3 {
            reads.get_as(&reads.key, path, more).await;
        }
        answered_in_front(reads).await > before
    })
    .await;
}

/// The headers, without the values of those that are another in each answer.
fn headers(answer: &Answer) -> BTreeMap<String, Vec<String>> {
    let mut headers = BTreeMap::<_, Vec<_>>::new();
    for (name, value) in &answer.headers {
        let own = ["date", "server-timing", "traceparent", "x-request-id"].contains(&name.as_str());
        let value = if own { "" } else { value.to_str().unwrap() };
        headers.entry(name.to_string()).or_default().push(value.to_owned());
    }
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_in_front_of_the_router_is_the_answer_behind_it() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(40).await;
    reads.publish().await;
    let (missing, mut words) = ("/v1/leads/9001/999999", 0);
    for path in ["/v1/leads?limit=30", "/v1/meta", "/v1/export/leaderboard.csv", missing] {
        for more in [&[][..], &[("accept-encoding", "gzip")], &[("if-none-match", "*")]] {
            let (front, behind) = of_one_moment(&reads, path, more, &mut words).await;
            assert_eq!(front.status, behind.status, "{path} {more:?}");
            assert_eq!(headers(&front), headers(&behind), "{path} {more:?}");
            if front.status == 404 {
                assert_eq!(front.json()["request_id"].as_str(), front.header("x-request-id"));
            } else {
                assert_eq!(front.body, behind.body);
            }
        }
    }
}

/// The answers of both ways to a question, from memory. What moves with the clock is fresh for a second only: if
/// it has got old between the two, they are asked for again.
async fn of_one_moment(
    reads: &Reads,
    path: &str,
    more: &[(&str, &str)],
    words: &mut usize,
) -> (Answer, Answer) {
    for _ in 0..20 {
        ask_until_in_front(reads, path, more).await;
        let front = reads.get_as(&reads.key, path, more).await;
        // The same question in words that nobody has used goes through the router.
        let joint = if path.contains('?') { '&' } else { '?' };
        *words += 1;
        let other_words = format!("{path}{joint}min_seq={:0width$}", 0, width = *words);
        let behind = reads.get_as(&reads.key, &other_words, more).await;
        let fresh = |answer: &Answer| answer.header("cache-status") == Some("memory; hit");
        let of = |answer: &Answer| answer.header("leadpulse-as-of").map(str::to_owned);
        if fresh(&front) && fresh(&behind) && of(&front) == of(&behind) {
            return (front, behind);
        }
    }
    panic!("never were both ways' answers to {path} of one moment");
}

/// Asks without a pause while nothing in front has to look a key up.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_key_is_no_key_in_front_either_and_each_key_has_its_own_answers() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(10).await;
    reads.publish().await;
    let path = "/v1/leads?limit=5";
    let stranger = reads.ground.create_key("other", &[]);
    let metrics_only = reads.ground.create_key("demo", &["metrics:read"]);
    ask_until_in_front(&reads, path, &[]).await;
    assert_eq!(reads.read(path).await["items"].as_array().unwrap().len(), 5);
    assert_eq!(reads.get_as(&stranger, path, &[]).await.json()["items"], serde_json::json!([]));
    assert_eq!(reads.get_as(&metrics_only, path, &[]).await.status, 403);
    reads
        .run(
            "update api_key set expires_at = now() + $1 * interval '1 ms' where org_id = 'demo'",
            1500,
        )
        .await;
    let (began, mut good) = (Instant::now(), 0);
    loop {
        let sent = began.elapsed();
        if reads.get(path).await.status != 200 {
            break;
        }
        good += 1;
        assert!(sent < Duration::from_secs(4), "an expired key is still good");
    }
    assert!(good > 0);
    assert_eq!(reads.get(path).await.status, 401);
}
