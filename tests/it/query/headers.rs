//! What an answer says of itself in its headers, endpoint by endpoint, and what it costs.

use std::time::Instant;

use tests::{
    document::Document,
    harness::{Answer, PATIENCE, wait_until},
};

use super::fixture::{METRICS, Reads, USERS};

/// Points that a key gets back in a second, and those of a full bucket.
const RATE: u32 = 60;
const BUCKET: u32 = RATE * 5;

/// Endpoints whose answers are kept, and their points.
const CACHED: [(&str, u32); 15] = [
    ("/v1/leads", 1),
    ("/v1/leads/9002/1", 1),
    ("/v1/leads/9002/1/timeline", 20),
    ("/v1/agents", 5),
    ("/v1/agents/7001", 1),
    ("/v1/agents/leaderboard", 1),
    ("/v1/kpis/summary", 5),
    ("/v1/kpis/funnel", 5),
    ("/v1/kpis/timeseries", 20),
    ("/v1/industries", 5),
    ("/v1/search?q=lead", 5),
    ("/v1/users", 1),
    ("/v1/meta", 5),
    ("/v1/export/leaderboard.csv", 20),
    ("/outcomes/summary", 5),
];

/// Those that are about this moment.
const UNCACHED: [(&str, u32); 2] = [("/v1/consistency", 1), ("/v1/export/leads.csv", 200)];

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

struct Asked<'a> {
    reads: &'a Reads,
    key: String,
}

impl Asked<'_> {
    async fn get(&self, path: &str, more: &[(&str, &str)]) -> Answer {
        let own = [("x-api-key", &*self.key), ("x-request-id", "mine-1"), ("traceparent", TRACE)];
        self.reads.get_as(&self.key, path, &[&own, more].concat()).await
    }
}

/// What every answer has, a refusal as well.
fn has_what_all_have(answer: &Answer, path: &str) {
    assert_eq!(answer.header("x-request-id"), Some("mine-1"), "{path}");
    let trace = answer.header("traceparent").unwrap();
    assert!(trace.starts_with(&TRACE[..36]) && trace != TRACE, "{path}: {trace}");
    assert!(answer.header("server-timing").unwrap().contains("dur="), "{path}");
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
}

fn is_dated(answer: &Answer, path: &str) {
    assert_eq!(answer.header("leadpulse-seq"), Some("5"), "{path}");
    let at = answer.header("leadpulse-as-of").unwrap();
    assert!(at.ends_with('Z') && at.len() == "2026-03-02T10:00:00.000000Z".len(), "{path}: {at}");
}

/// Points that the key has left.
fn left(answer: &Answer, path: &str) -> u32 {
    let policy = format!("\"key\";q={BUCKET};w=5, \"org\";q=400000;w=5");
    assert_eq!(answer.header("ratelimit-policy"), Some(policy.as_str()), "{path}");
    let left = answer.header("ratelimit").unwrap();
    let (key, org) = left.strip_prefix("\"key\";r=").unwrap().split_once(", \"org\";r=").unwrap();
    assert!(org.parse::<u32>().is_ok(), "{path}: {left}");
    key.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_says_of_when_it_is_where_it_comes_from_and_what_is_left() {
    let rate = RATE.to_string();
    let reads = Reads::start(false, &[("LEADPULSE_QUERY_API_RATE_LIMIT", &rate)]).await;
    reads.fill(40).await;
    reads.run(METRICS, 4).await;
    reads.run(USERS, 4).await;
    reads.applied(5).await;
    let all = CACHED.map(|(path, cost)| (path, cost, true)).into_iter();
    for (path, cost, cached) in all.chain(UNCACHED.map(|(path, cost)| (path, cost, false))) {
        // A key for each, whose bucket is full.
        let asked = Asked { reads: &reads, key: reads.ground.create_key("demo", &[]) };
        let started = Instant::now();
        let first = asked.get(path, &[]).await;
        assert_eq!(first.status, 200, "{path}: {first:?}");
        has_what_all_have(&first, path);
        is_dated(&first, path);
        // It gets some back in the time that the answer takes.
        let back = (started.elapsed().as_secs_f64() * f64::from(RATE)).ceil();
        let taken = f64::from(BUCKET - left(&first, path));
        assert!(taken <= f64::from(cost) && taken + back >= f64::from(cost), "{path}: {taken}");
        if !cached {
            assert_eq!(first.header("cache-control"), Some("private, no-store"), "{path}");
            assert_eq!(
                (first.header("etag"), first.header("cache-status")),
                (None, Some("memory; fwd=bypass")),
                "{path}"
            );
            continue;
        }
        assert_eq!(first.header("cache-control"), Some("private, no-cache"), "{path}");
        assert_eq!(first.header("cache-status"), Some("memory; fwd=miss; stored"), "{path}");
        assert!(first.header("etag").is_some(), "{path}");
        // What moves with the clock may have got another body between two requests: then once more.
        wait_until("the same answer comes from memory", PATIENCE, async || {
            let (one, other) = (asked.get(path, &[]).await, asked.get(path, &[]).await);
            let from = other.header("cache-status").unwrap();
            if one.header("etag") != other.header("etag") || !from.starts_with("memory; hit") {
                return false;
            }
            assert_eq!(one.body, other.body, "{path}");
            left(&other, path) >= left(&one, path)
        })
        .await;
        for form in ["TAG", "W/TAG", "\"other\", TAG", "*"] {
            wait_until("the client has it", PATIENCE, async || {
                let tag = asked.get(path, &[]).await.header("etag").unwrap().to_owned();
                let known = form.replace("TAG", &tag);
                let unchanged = asked.get(path, &[("if-none-match", &known)]).await;
                if unchanged.status != 304 {
                    return false;
                }
                is_dated(&unchanged, path);
                unchanged.body.is_empty() && unchanged.header("etag").is_some()
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_is_answered_as_a_get_without_its_body() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(40).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let head = async |path: &str, tag: &str| {
        let request = client.head(format!("{}{path}", reads.api.url())).bearer_auth(&reads.key);
        let request = request.header("x-api-key", &reads.key).header("if-none-match", tag);
        let answer = request.send().await.unwrap();
        let headers = answer.headers().clone();
        (answer.status().as_u16(), headers, answer.bytes().await.unwrap().len())
    };
    for (path, _) in CACHED {
        if path.contains("/agents/") {
            continue;
        }
        wait_until("both are of one answer", PATIENCE, async || {
            let get = reads.get_as(&reads.key, path, &[("x-api-key", &reads.key)]).await;
            let tag = get.header("etag").unwrap();
            let (status, headers, length) = head(path, "\"other\"").await;
            assert_eq!((status, length), (200, 0), "{path}");
            let (known, _, nothing) = head(path, tag).await;
            assert_eq!(nothing, 0, "{path}");
            let size = get.body.len().to_string();
            known == 304 && headers["etag"] == tag && headers["content-length"] == size.as_str()
        })
        .await;
    }
    assert_eq!(head("/v1/export/leads.csv", "*").await.0, 200);
    assert_eq!(head("/v1/leads/1/1", "*").await.0, 404, "there is nothing to have");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_problem_with_the_requests_id() {
    let reads = Reads::start(false, &[]).await;
    let metrics = reads.ground.create_key("demo", &["metrics:read"]);
    let good = Asked { reads: &reads, key: reads.key.clone() };
    let (narrow, none) =
        (Asked { reads: &reads, key: metrics }, Asked { reads: &reads, key: "lp_x".to_owned() });
    let document = Document::of(&reads.api).await;
    for (asked, path, status, kind) in [
        (&good, "/v1/leads?from=soon", 400, "invalid-parameters"),
        (&good, "/openapi.json?x=1", 400, "invalid-parameters"),
        (&good, "/docs?x=1", 400, "invalid-parameters"),
        (&none, "/v1/leads", 401, "unauthorized"),
        (&narrow, "/v1/leads", 403, "missing-scope"),
        (&good, "/v1/leads/9001/1", 404, "not-found"),
        (&good, "/v1/nothing", 404, "not-found"),
        (&good, "/ops/dead-letters/retry", 405, "method-not-allowed"),
        (&good, "/v1/meta?min_seq=7", 503, "not-yet-applied"),
    ] {
        let refused = asked.get(path, &[]).await;
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        has_what_all_have(&refused, path);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"), "{path}");
        let body = refused.json();
        assert_eq!(body["type"], format!("urn:leadpulse:problem:{kind}"), "{path}");
        assert_eq!((&body["status"], &body["request_id"]), (&status.into(), &"mine-1".into()));
        assert_eq!(refused.header("retry-after").is_some(), status == 503, "{path}");
        if document.has(path) {
            document.check("GET", path, &refused);
        }
    }
}
