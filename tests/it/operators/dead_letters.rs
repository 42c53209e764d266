use async_nats::HeaderMap;
use leadpulse_nats::envelope::MESSAGE_ID;
use serde_json::{Value, json};
use tests::{
    harness::{PATIENCE, Projection, envelope, eventually},
    naive::Arrival,
};

use super::{json, last_audit, operate, refused, setup};

fn event(kind: &str, item: i64, n: usize, more: Value) -> String {
    let second = n % 60;
    let mut event = json!({
        "type": kind, "boardId": 9001, "pulseId": item, "userId": 7, "groupId": "topics",
        "triggerTime": format!("2026-03-02T10:00:{second:02}.000Z"),
        "subscriptionId": 1, "triggerUuid": format!("{item}-{n}"),
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event.to_string()
}

pub(super) fn named(item: i64, name: &str, n: usize) -> String {
    event("update_name", item, n, json!({ "value": { "name": name } }))
}

/// Postgres refuses it as long as the constraint stands: the lead's first touch was in 2001.
pub(super) fn poison(item: i64, n: usize) -> String {
    event("create_update", item, n, json!({ "triggerTime": "2001-01-01T00:00:00Z" }))
}

pub(super) const POISON: &str =
    "alter table lead_fact add constraint poison check (first_touch_at > '2002-01-01')";
pub(super) const FIXED: &str = "alter table lead_fact drop constraint poison";

pub(super) async fn execute(projection: &Projection, sql: &'static str) {
    sqlx::query(sql).execute(&projection.ground.database.pool).await.unwrap();
}

async fn poisoned(leads: std::ops::Range<i64>) -> Projection {
    let mut projection = Projection::start(setup()).await;
    projection.settle().await;
    execute(&projection, POISON).await;
    let mut events: Vec<String> = (0..1000).map(|item| named(item, "good", 0)).collect();
    for item in leads {
        events.insert(500, poison(item, 1));
        events.push(named(item, "later", 2));
    }
    projection.publish(&events).await;
    projection.settle().await;
    projection
}

#[tokio::test]
async fn a_poisoned_lead_among_a_thousand_is_seen_retried_in_order_and_nothing_is_left_of_it() {
    let mut projection = poisoned(77..78).await;
    projection.publish(&[named(77, "last", 3)]).await;
    projection.settle().await;
    let groups = json(&projection, 0, &["dead-letters", "list"]);
    let groups = groups.as_array().unwrap();
    assert_eq!(groups.iter().map(|group| group["letters"].as_i64().unwrap()).sum::<i64>(), 3);
    assert!(groups.iter().all(|group| group["leads"] == 1), "{groups:?}");
    let first = groups.iter().filter_map(|group| group["first_seq"].as_i64()).min().unwrap();
    let letter = json(&projection, 0, &["dead-letters", "show", &first.to_string()]);
    assert_eq!(letter["payload"]["event"]["type"], "create_update");
    assert_eq!(letter["waiting_of_lead"].as_array().unwrap().len(), 3);
    let status = json(&projection, 1, &["status"]);
    assert_eq!(status["projection"]["parked_leads"], 1);

    let retry = ["dead-letters", "retry", "--lead", "77"];
    let count = json(&projection, 0, &[&retry[..], &["--dry-run"]].concat());
    assert_eq!(count, json!({ "letters": 3, "leads": 1 }));
    // Not mended yet: refused again, and all wait on in their order.
    let refused_again = json(&projection, 1, &[&retry[..], &["--yes"]].concat());
    assert_eq!((&refused_again["applied"], &refused_again["refused"]), (&json!(0), &json!(3)));
    execute(&projection, FIXED).await;
    let done = json(&projection, 0, &[&retry[..], &["--yes", "--reason", "mended"]].concat());
    assert_eq!((&done["applied"], &done["refused"]), (&json!(3), &json!(0)));
    let audit = last_audit(&projection);
    assert_eq!(
        (&audit["command"], &audit["reason"]),
        (&json!("dead-letters retry"), &json!("mended"))
    );
    assert_eq!(json(&projection, 0, &["dead-letters", "list"]), json!([]));
    projection.publish(&[named(77, "after", 4)]).await;
    projection.check().await;
    json(&projection, 0, &["status"]);
}

#[tokio::test]
async fn many_letters_are_retried_no_faster_than_asked() {
    let projection = poisoned(100..120).await;
    execute(&projection, FIXED).await;
    let started = std::time::Instant::now();
    let words = ["dead-letters", "retry", "--all", "--rate", "20", "--yes"];
    let done = json(&projection, 0, &words);
    assert_eq!((&done["requested"], &done["applied"]), (&json!(40), &json!(40)));
    assert!(started.elapsed().as_secs_f64() > 1.0, "40 letters at 20 a second");
    projection.check().await;
}

#[tokio::test]
async fn a_skipped_event_is_given_up_with_its_reason_and_what_waited_behind_it_goes_on() {
    let mut projection = poisoned(77..78).await;
    let said = refused(&projection, 2, &["dead-letters", "skip", "--reason", "x", "--yes"]);
    assert!(said.contains("which ones"), "{said}");
    let first = json(&projection, 0, &["dead-letters", "list", "--error", "poison"]);
    let seq = first[0]["first_seq"].as_i64().unwrap();
    let text = seq.to_string();
    let words = ["dead-letters", "skip", "--seq", &text, "--reason", "sent by a script", "--yes"];
    let done = json(&projection, 0, &words);
    assert_eq!((&done["letters"], &done["still_waiting"]), (&json!(1), &json!(1)));
    let letter = json(&projection, 0, &["dead-letters", "show", &text]);
    assert_eq!(letter["resolution"], "skipped: sent by a script");
    assert_eq!(last_audit(&projection)["reason"], "sent by a script");

    json(&projection, 0, &["dead-letters", "retry", "--lead", "77", "--yes"]);
    projection.publish(&[named(77, "goes on", 5)]).await;
    // As if the event had never been: also for a lead that is made anew from the stream.
    projection.arrivals.retain(|arrival| i64::try_from(arrival.seq).unwrap() != seq);
    projection.check().await;
    json(&projection, 0, &["rebuild-lead", "9001", "77", "--yes"]);
    projection.check().await;
}

#[tokio::test]
async fn a_lead_whose_letters_were_all_skipped_is_parked_no_more() {
    let mut projection = poisoned(77..78).await;
    let words = ["dead-letters", "skip", "--lead", "77", "--reason", "no lead", "--yes"];
    json(&projection, 0, &words);
    projection.publish(&[named(77, "new", 6)]).await;
    eventually("the new event is applied", PATIENCE, async || {
        let leads = projection.leads().await;
        (leads[&(9001, 77)].name.as_deref() == Some("new")).then_some(())
    })
    .await;
    assert_eq!(json(&projection, 0, &["dead-letters", "list"]), json!([]));
}

pub(super) async fn waiting(projection: &Projection) -> i64 {
    sqlx::query_scalar("select count(*) from dead_letter where resolved_at is null")
        .fetch_one(&projection.ground.database.pool)
        .await
        .unwrap()
}

pub(super) fn sequence_of(projection: &Projection, event: &str) -> u64 {
    projection.arrivals.iter().find(|arrival| arrival.event == event).unwrap().seq
}

#[tokio::test]
async fn what_was_skipped_and_what_waits_stay_where_they_are_when_the_position_goes_back() {
    let mut projection = poisoned(77..79).await;
    let skipped = sequence_of(&projection, &poison(77, 1));
    let seq = skipped.to_string();
    json(&projection, 0, &["dead-letters", "skip", "--seq", &seq, "--reason", "test", "--yes"]);
    // Nothing stands in the way of either of them any more, but nobody has asked for them.
    execute(&projection, FIXED).await;
    json(&projection, 0, &["dead-letters", "retry", "--lead", "77", "--yes"]);
    assert_eq!(waiting(&projection).await, 2, "the refused event and the later one of its lead");

    json(&projection, 0, &["pause", "--reason", "test", "--yes"]);
    let last = projection.last_seq().to_string();
    let back = ["checkpoint", "set", "0", "--expect", &last, "--reason", "test", "--yes"];
    json(&projection, 0, &back);
    json(&projection, 0, &["resume"]);
    projection.settle().await;
    assert_eq!(waiting(&projection).await, 2, "no event that was applied became a letter");
    json(&projection, 0, &["verify"]);
    json(&projection, 0, &["dead-letters", "retry", "--all", "--yes"]);
    projection.arrivals.retain(|arrival| arrival.seq != skipped);
    projection.check().await;
}

#[tokio::test]
async fn what_is_skipped_while_a_rebuild_goes_on_is_not_in_the_new_tables() {
    let mut projection = poisoned(77..78).await;
    let first = sequence_of(&projection, &poison(77, 1));
    let skip = |projection: &Projection, seq: u64| {
        let seq = seq.to_string();
        json(projection, 0, &["dead-letters", "skip", "--seq", &seq, "--reason", "test", "--yes"]);
    };
    // The new tables take what the live ones have refused.
    execute(&projection, FIXED).await;
    json(&projection, 0, &["rebuild", "start", "--yes"]);
    skip(&projection, first);
    let said = refused(&projection, 1, &["rebuild", "swap", "--yes"]);
    assert!(said.contains("1 letters were skipped after"), "{said}");
    json(&projection, 0, &["rebuild", "abort", "--yes"]);
    json(&projection, 0, &["rebuild", "start", "--yes"]);

    // And one of an event that the new tables catch up with.
    execute(&projection, POISON).await;
    projection.publish(&[named(80, "good", 0), poison(80, 1)]).await;
    projection.settle().await;
    let second = sequence_of(&projection, &poison(80, 1));
    skip(&projection, second);
    json(&projection, 0, &["rebuild", "swap", "--yes"]);
    projection.publish(&[named(80, "after", 3)]).await;
    projection.arrivals.retain(|arrival| ![first, second].contains(&arrival.seq));
    projection.check().await;
    json(&projection, 0, &["verify"]);
    // What waited in the old tables waits again.
    json(&projection, 0, &["rebuild", "rollback", "--yes"]);
    projection.publish(&[named(80, "back", 4)]).await;
    eventually("they are applied", PATIENCE, async || {
        let words = ["dead-letters", "retry", "--lead", "77", "--yes"];
        operate(&projection, &words).status.success().then_some(())
    })
    .await;
    projection.check().await;
    json(&projection, 0, &["verify"]);
}

#[tokio::test]
async fn a_message_that_is_no_envelope_is_shown_and_can_be_given_up_or_read_again() {
    let projection = Projection::start(setup()).await;
    projection.settle().await;
    let jetstream = projection.jetstream().await;
    for payload in ["no json", r#"{"v":9}"#] {
        let publish = jetstream.publish("leadpulse.events.demo.9001.other", payload.into());
        publish.await.unwrap().await.unwrap();
    }
    let list = eventually("both are parked", PATIENCE, async || {
        let list = json(&projection, 0, &["dead-letters", "list"]);
        (list.as_array().unwrap().len() == 2).then_some(list)
    })
    .await;
    assert!(list[0]["org_id"].is_null());
    assert_eq!(json(&projection, 0, &["dead-letters", "show", "1"])["payload"], "no json");
    let again = json(&projection, 1, &["dead-letters", "retry", "--all", "--yes"]);
    assert_eq!((&again["requested"], &again["refused"]), (&json!(2), &json!(2)));
    let words =
        ["dead-letters", "skip", "--seq", "1", "--seq", "2", "--reason", "rubbish", "--yes"];
    assert_eq!(json(&projection, 0, &words)["letters"], 2);
    json(&projection, 0, &["status"]);
}

/// An envelope of a version to come, as a projector finds it that was not brought up to date with ingest.
/// That the newer one can read it is played by the letter, which says another version afterwards.
#[tokio::test]
async fn an_envelope_that_has_become_readable_is_applied_when_it_is_retried() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&[named(1, "first", 0)]).await;
    let received_at = chrono::Utc::now().timestamp_micros();
    let mut arrival = Arrival { seq: 0, received_at, event: named(1, "second", 1) };
    let mut newer = envelope(&arrival);
    newer.v = 99;
    let mut headers = HeaderMap::new();
    headers.insert(MESSAGE_ID, newer.message_id().as_str());
    let payload = serde_json::to_vec(&newer).unwrap();
    let jetstream = projection.jetstream().await;
    let publish = jetstream.publish_with_headers(newer.subject(), headers, payload.into());
    arrival.seq = publish.await.unwrap().await.unwrap().sequence;
    let seq = arrival.seq.to_string();

    // It holds nobody up, its own lead's later events included, and `status` counts it.
    projection.publish(&[named(1, "third", 2), named(2, "another", 0)]).await;
    projection.check().await;
    let status = json(&projection, 1, &["status"]);
    assert_eq!(status["projection"]["unreadable_letters"], 1, "{status}");
    let shown = json(&projection, 0, &["dead-letters", "show", &seq]);
    assert!(shown["error"].as_str().unwrap().contains("version 99 is newer"), "{shown}");

    // As long as nobody can read it, a retry leaves it where it is.
    let retried = json(&projection, 1, &["dead-letters", "retry", "--seq", &seq, "--yes"]);
    assert_eq!((&retried["applied"], &retried["refused"]), (&json!(0), &json!(1)), "{retried}");
    let readable = "update dead_letter
        set payload = convert_to(replace(convert_from(payload, 'utf8'), '\"v\":99', '\"v\":1'), 'utf8')";
    execute(&projection, readable).await;
    let retried = json(&projection, 0, &["dead-letters", "retry", "--seq", &seq, "--yes"]);
    assert_eq!((&retried["applied"], &retried["refused"]), (&json!(1), &json!(0)), "{retried}");
    projection.arrivals.push(arrival);
    projection.check().await;
    assert_eq!(json(&projection, 0, &["dead-letters", "list"]), json!([]));
    json(&projection, 0, &["status"]);
}
