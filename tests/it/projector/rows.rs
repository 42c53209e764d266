use async_nats::HeaderMap;
use leadpulse_nats::envelope::MESSAGE_ID;
use serde_json::value::RawValue;
use tests::{
    harness::{Projection, envelope},
    naive::Arrival,
};

use super::{history, poison::named, setup};

#[tokio::test]
async fn a_random_history_gives_the_rows_of_the_naive_implementation() {
    for seed in [1, 2, 3] {
        let mut projection = Projection::start(setup(&[])).await;
        projection.publish(&history(12, 400, seed)).await;
        projection.check().await;
    }
}

#[tokio::test]
async fn the_number_of_lanes_can_change_between_runs() {
    let mut projection = Projection::start(setup(&[])).await;
    let mut expected = 2;
    for (part, lanes) in history(30, 600, 4).chunks(200).zip(["5", "1", "3", "3"]) {
        projection.publish(part).await;
        projection.settle().await;
        assert_eq!(lanes_of(&projection).await, expected);
        projection.projector.set("LEADPULSE_PROJECTOR_LANES", lanes);
        projection.projector.kill_and_restart();
        expected = lanes.parse().unwrap();
    }
    projection.check().await;
}

async fn lanes_of(projection: &Projection) -> i64 {
    let count = "select count(*) from checkpoint where projection = 'main'";
    sqlx::query_scalar(count).fetch_one(&projection.ground.database.pool).await.unwrap()
}

#[tokio::test]
async fn applying_the_whole_stream_again_changes_no_byte() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(12, 300, 5)).await;
    projection.check().await;
    let before = bytes(&projection).await;
    projection.projector.kill9();
    let pool = &projection.ground.database.pool;
    sqlx::query("update checkpoint set seq = 0 where projection = 'main'")
        .execute(pool)
        .await
        .unwrap();
    projection.projector.restart().unwrap();
    projection.check().await;
    assert_eq!(bytes(&projection).await, before);
}

/// All of LeadFact, and the transaction that wrote each row: a row that is written again, as it is, has another.
async fn bytes(projection: &Projection) -> Vec<String> {
    let rows =
        "select xmin::text || lead_fact::text from lead_fact order by org_id, board_id, item_id";
    sqlx::query_scalar(rows).fetch_all(&projection.ground.database.pool).await.unwrap()
}

/// serde_json keeps such keys for itself, and refuses a text that has one of them.
#[tokio::test]
async fn an_event_with_a_key_that_the_library_keeps_for_itself_is_applied() {
    let mut projection = Projection::start(setup(&[])).await;
    let plain = named(7, "Dana", 1);
    let arrival =
        Arrival { seq: 1, received_at: chrono::Utc::now().timestamp_micros(), event: plain };
    let mut message = envelope(&arrival);
    let odd = r#"{"extra":{"$serde_json::private::Number":"x"},"#;
    let odd = arrival.event.replacen('{', odd, 1);
    message.event = RawValue::from_string(odd).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(MESSAGE_ID, message.message_id().as_str());
    let payload = serde_json::to_vec(&message).unwrap().into();
    let jetstream = projection.jetstream().await;
    let sent = jetstream.publish_with_headers(message.subject(), headers, payload).await.unwrap();
    sent.await.unwrap();
    // To the rows it is the event without that key.
    projection.arrivals.push(arrival);
    projection.check().await;
    assert_eq!(projection.leads().await[&(9001, 7)].name.as_deref(), Some("Dana"));
}
