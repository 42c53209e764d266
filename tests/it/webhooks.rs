//! The door: who may post, and what stands in the stream afterwards.

use std::collections::{BTreeMap, BTreeSet};

use chrono::Utc;
use serde_json::{Value, json};
use tests::{
    generate::{Size, one_of_each_type, seeded_history},
    harness::{
        Answer, Claims, Ground, ORG, PATIENCE, SECRET, SHORT_LIVED_TOKEN, SOURCE, Service, Setup,
        sign_jwt, wait_until,
    },
    naive::{Event, rfc3339},
};

const EVENT: &str = r#"{"event":{"type":"create_pulse","boardId":9001,"pulseId":42,"subscriptionId":501,"triggerUuid":"0123456789abcdef0123456789abcdef","changedAt":1772445600.62810640,  "z":"א\u0000","triggerTime":"2026-03-02T10:00:01.044Z"}}"#;
const PATH: &str = "/webhooks/monday/demo-crm";

async fn door() -> (Service, Ground) {
    let ground = Ground::prepare(Setup { redis: false, ..Setup::default() }).await.unwrap();
    let ingest = ground.start("ingest").unwrap();
    ingest.wait_until_ready().await;
    (ingest, ground)
}

async fn post(ingest: &Service, authorization: &str) -> Answer {
    ingest.post(PATH, &[("authorization", authorization)], EVENT).await.unwrap()
}

fn token() -> String {
    sign_jwt(&Claims::default(), SECRET)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_with_the_same_json_without_any_signature() {
    let (ingest, ground) = door().await;
    let answer = ingest
        .post(PATH, &[], r#"{"challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"}"#)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.json(),
        json!({"challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"})
    );
    assert!(ground.stream().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_signed_by_the_source_is_refused_and_not_stored() {
    let (ingest, ground) = door().await;
    let now = Utc::now().timestamp();
    let expired = Claims { issued_at: now - 900, expires_at: now - 600, ..Claims::default() };
    let wrong = [
        sign_jwt(&Claims::default(), "another secret"),
        sign_jwt(&expired, SECRET),
        token().split('.').take(2).collect::<Vec<_>>().join("."),
        "Bearer ".to_owned(),
        // {"alg":"none"}
        format!("eyJhbGciOiJub25lIn0.{}.", token().split('.').nth(1).unwrap()),
    ];
    for authorization in &wrong {
        assert_eq!(post(&ingest, authorization).await.status, 401, "{authorization}");
    }
    assert_eq!(ingest.post(PATH, &[], EVENT).await.unwrap().status, 401);
    // Somebody else's door: it wants its own token in the URL, and a token of this one does not help.
    let post_to = async |path: &str| {
        ingest.post(path, &[("authorization", &token())], EVENT).await.unwrap().status
    };
    assert_eq!(post_to("/webhooks/monday/other-crm").await, 401);
    assert_eq!(post_to("/webhooks/monday/nobody").await, 404);
    let broken = ingest.post(PATH, &[("authorization", &token())], "{\"event\":").await.unwrap();
    assert_eq!(broken.status, 400);
    assert!(ground.stream().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_event_is_stored_once_byte_for_byte() {
    let (ingest, ground) = door().await;
    let first = post(&ingest, &token()).await;
    assert_eq!((first.status, first.header("leadpulse-seq")), (200, Some("1")));
    assert_eq!(first.header("leadpulse-duplicate"), None);
    let again = post(&ingest, &format!("Bearer {}", token())).await;
    assert_eq!((again.status, again.header("leadpulse-seq")), (200, Some("1")));
    assert_eq!(again.header("leadpulse-duplicate"), Some("true"));

    let stream = ground.stream().await;
    assert_eq!(stream.len(), 1);
    let event = EVENT.strip_prefix(r#"{"event":"#).and_then(|rest| rest.strip_suffix('}')).unwrap();
    assert_eq!(stream[0].event, event);
    assert_eq!(stream[0].subject, "leadpulse.events.demo.9001.create_pulse");
    assert_eq!(stream[0].message_id.as_deref(), Some("demo:501:0123456789abcdef0123456789abcdef"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_of_a_personal_token_is_known_by_its_url() {
    let (ingest, ground) = door().await;
    let post = async |token: &str| {
        let path = format!("/webhooks/monday/other-crm/{token}");
        ingest.post(&path, &[], EVENT).await.unwrap().status
    };
    assert_eq!(post("wrong").await, 401);
    assert_eq!(post(SECRET).await, 200);
    assert_eq!(ground.stream().await[0].subject, "leadpulse.events.other.9001.create_pulse");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_has_the_identity_and_the_time_that_the_page_says() {
    let (ingest, ground) = door().await;
    let now = Utc::now().timestamp_micros();
    let size = Size { items: 20, events: 300..301 };
    let mut posted = one_of_each_type(&ground.rules, now, 11);
    posted.extend(seeded_history(&ground.rules, &size, now, 11));
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    let mut kept: BTreeMap<u64, &str> = BTreeMap::new();
    for event in &posted {
        let before = Utc::now().timestamp_micros();
        let accepted = ingest.deliver(event).await;
        // The id needs no clock, so it is known before the stream is looked at.
        let arrival = tests::naive::Arrival { seq: 0, received_at: before, event: event.clone() };
        let id = Event::read(&arrival).id;
        assert_eq!(accepted.duplicate, known.contains_key(&id), "{event}");
        assert_eq!(*known.entry(id).or_insert(accepted.seq), accepted.seq, "{event}");
        kept.entry(accepted.seq).or_insert(event);
    }
    let stream = ground.stream().await;
    assert_eq!(stream.len(), known.len());
    let mut kinds = BTreeSet::new();
    for message in &stream {
        assert_eq!(message.event, kept[&message.seq]);
        let event = Event::read(&message.arrival());
        let envelope = &message.envelope;
        assert_eq!(envelope["org"], ORG);
        assert_eq!(envelope["source"], SOURCE);
        assert_eq!(envelope["event_id"], event.id.as_str(), "{envelope}");
        assert_eq!(envelope["board_id"].as_i64(), event.board_id(), "{envelope}");
        if let Some((_, item)) = event.lead() {
            assert_eq!(envelope["item_id"].as_i64(), Some(item), "{envelope}");
        }
        let occurred_at =
            chrono::DateTime::parse_from_rfc3339(envelope["occurred_at"].as_str().unwrap());
        assert_eq!(
            rfc3339(occurred_at.unwrap().timestamp_micros()),
            rfc3339(event.occurred_at),
            "{envelope}"
        );
        assert!(message.received_at >= now && message.received_at <= Utc::now().timestamp_micros());
        kinds.insert(message.subject.rsplit('.').next().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_logged_or_published() {
    let (ingest, ground) = door().await;
    let good = token();
    let bad = sign_jwt(&Claims::default(), "another secret");
    assert_eq!(post(&ingest, &good).await.status, 200);
    assert_eq!(post(&ingest, &bad).await.status, 401);
    let path = format!("/webhooks/monday/other-crm/{SECRET}");
    assert_eq!(ingest.post(&path, &[], EVENT).await.unwrap().status, 200);
    let wrong_path = "/webhooks/monday/other-crm/guessed-token";
    assert_eq!(ingest.post(wrong_path, &[], EVENT).await.unwrap().status, 401);

    let stream: String = ground
        .stream()
        .await
        .iter()
        .map(|m| format!("{}{}{:?}{:?}", m.envelope, m.event, m.message_id, m.trace_parent))
        .collect();
    let metrics = ingest.page("/metrics").await.body;
    let seen = [ingest.log_text(), stream, metrics].concat();
    for secret in [SECRET, SHORT_LIVED_TOKEN, "guessed-token", &good, &bad] {
        assert!(!seen.contains(secret), "{secret} was shown");
    }
    for part in good.split('.').skip(1).chain(bad.split('.').skip(1)) {
        assert!(!seen.contains(part), "a part of a token was shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_webhooks_trace_goes_on_in_the_stream() {
    let (ingest, ground) = door().await;
    let headers = [
        ("authorization", token()),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
    ];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    assert_eq!(ingest.post(PATH, &headers, EVENT).await.unwrap().status, 200);
    let stream = ground.stream().await;
    let trace_parent = stream[0].trace_parent.clone().unwrap();
    assert!(trace_parent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{trace_parent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_stream_a_webhook_is_asked_to_come_again() {
    let (ingest, mut ground) = door().await;
    ground.nats.kill9();
    let refused = post(&ingest, &token()).await;
    assert_eq!((refused.status, refused.body.as_str()), (503, ""));
    assert!(refused.header("retry-after").is_some());
    let unready = async || ingest.page("/health/readiness").await.status == 503;
    wait_until("ingest says that it can't work", PATIENCE, unready).await;
    assert_eq!(ingest.page("/health/liveness").await.status, 200);

    ground.nats.restart().unwrap();
    let event: Value = serde_json::from_str(EVENT).unwrap();
    assert_eq!(ingest.deliver(&event["event"].to_string()).await.seq, 1);
    ingest.wait_until_ready().await;
}
