use serde_json::json;
use tests::harness::{PATIENCE, Projection, eventually, wait_until};

use super::setup;

pub(super) fn named(item: i64, name: &str, n: usize) -> String {
    json!({
        "type": "update_name", "boardId": 9001, "pulseId": item, "userId": 7, "groupId": "topics",
        "value": { "name": name }, "triggerTime": format!("2026-03-02T10:00:{:02}.000Z", n % 60),
        "subscriptionId": 1, "triggerUuid": format!("{item}-{n}"),
    })
    .to_string()
}

pub(super) async fn execute(projection: &Projection, sql: &'static str) {
    sqlx::query(sql).execute(&projection.ground.database.pool).await.unwrap();
}

async fn letters(projection: &Projection) -> Vec<(i64, String)> {
    sqlx::query_as("select seq, reason from dead_letter where resolved_at is null order by seq")
        .fetch_all(&projection.ground.database.pool)
        .await
        .unwrap()
}

/// An update from 2001 is the lead's first touch for ever, whatever comes later.
pub(super) fn poison(item: i64, n: usize) -> String {
    json!({
        "type": "create_update", "boardId": 9001, "pulseId": item, "userId": 7,
        "triggerTime": "2001-01-01T00:00:00Z", "subscriptionId": 1, "triggerUuid": format!("{item}-{n}"),
    })
    .to_string()
}

/// Postgres refuses leads that were touched in 2001: data that can't be written, made by hand.
pub(super) const POISON: &str =
    "alter table lead_fact add constraint poison check (first_touch_at > '2002-01-01')";

/// The same, whatever stands in the table already.
const POISON_FROM_NOW: &str =
    "alter table lead_fact add constraint poison check (first_touch_at > '2002-01-01') not valid";

#[tokio::test]
async fn one_bad_event_among_a_thousand_leads_parks_its_lead_and_a_retry_heals_it() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    execute(&projection, POISON).await;
    let mut events: Vec<String> = (0..1000).map(|item| named(item, "good", 0)).collect();
    events.insert(500, poison(77, 1));
    events.push(named(77, "good again", 2));
    events.push(named(78, "other", 3));
    projection.publish(&events).await;
    projection.settle().await;
    let parked = letters(&projection).await;
    assert_eq!(parked.len(), 2, "the event and the later one of its lead: {parked:?}");
    assert_eq!(
        projection.leads().await[&(9001, 77)].name.as_deref(),
        Some("good"),
        "as before the poison"
    );
    assert_eq!(
        projection.leads().await[&(9001, 78)].name.as_deref(),
        Some("other"),
        "others go on"
    );

    // What comes later waits behind them, also after a restart.
    projection.projector.kill_and_restart();
    projection.publish(&[named(77, "last", 4)]).await;
    projection.settle().await;
    assert_eq!(letters(&projection).await.len(), 3);

    execute(&projection, "alter table lead_fact drop constraint poison").await;
    execute(&projection, "update dead_letter set retry_requested_at = now()").await;
    eventually("the letters are applied", PATIENCE, async || {
        letters(&projection).await.is_empty().then_some(())
    })
    .await;
    projection.check().await;
}

/// The operator asks once, whatever happens to the projector meanwhile.
#[tokio::test]
async fn killed_at_any_step_of_a_retry_the_letters_are_applied_once_and_in_order() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    for (item, step) in (1..).zip(["retry-applied", "retry-commit", "retry-committed"]) {
        execute(&projection, POISON_FROM_NOW).await;
        let of_lead = |n| named(item, &format!("name {n}"), n);
        projection.publish(&[of_lead(0), poison(item, 1), of_lead(2), of_lead(3)]).await;
        projection.settle().await;
        assert_eq!(letters(&projection).await.len(), 3);
        execute(&projection, "alter table lead_fact drop constraint poison").await;
        projection.projector.kill9();
        projection.projector.set("FAILPOINTS", &format!("{step}=return"));
        projection.projector.restart().unwrap();
        execute(&projection, "update dead_letter set retry_requested_at = now()").await;
        assert!(projection.projector.ended(PATIENCE).await.is_some(), "it does not die at {step}");
        projection.projector.set("FAILPOINTS", "");
        projection.projector.restart().unwrap();
        eventually("the letters are applied", PATIENCE, async || {
            letters(&projection).await.is_empty().then_some(())
        })
        .await;
        projection.check().await;
    }
}

/// An ingest that was upgraded before the projector must not fill the table of dead letters.
#[tokio::test]
async fn messages_of_a_newer_ingest_pause_the_projection() {
    let limit = ("LEADPULSE_PROJECTOR_PARKED_LEADS_LIMIT", "10");
    let projection = Projection::start(setup(&[limit])).await;
    projection.settle().await;
    let jetstream = projection.jetstream().await;
    for n in 0..50 {
        let newer = json!({ "v": 99, "org": "demo", "event_id": format!("1:{n}") }).to_string();
        let sent = jetstream.publish("leadpulse.events.demo.9001.update_name", newer.into());
        sent.await.unwrap().await.unwrap();
    }
    let url = format!("{}/health/readiness", projection.projector.url());
    eventually("the projector pauses", PATIENCE, async || {
        let text = reqwest::get(&url).await.ok()?.text().await.ok()?;
        text.contains("unreadable messages were refused").then_some(())
    })
    .await;
    assert!(letters(&projection).await.len() <= 10);
}

/// Who wrote into the table by hand, or a disk that lies.
#[tokio::test]
async fn a_lead_whose_row_is_damaged_is_parked_and_made_anew() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let events: Vec<String> = (0..20).map(|item| named(item, "good", 0)).collect();
    projection.publish(&events).await;
    projection.settle().await;
    execute(&projection, "update lead_fact set fold_state = '\\xff' where item_id = 7").await;
    // What the lanes remember of the row is what it was before.
    projection.projector.kill_and_restart();
    let events: Vec<String> = (0..20).map(|item| named(item, "later", 1)).collect();
    projection.publish(&events).await;
    projection.settle().await;
    let parked = letters(&projection).await;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert!(parked[0].1.contains("projector rebuild-lead"), "{parked:?}");
    assert_eq!(projection.leads().await[&(9001, 8)].name.as_deref(), Some("later"));

    // A retry alone finds the row as damaged as it was.
    let retry = ["dead-letters", "retry", "--all", "--yes"];
    assert_eq!(projection.ground.run("projector", &retry).status.code(), Some(1));
    assert_eq!(letters(&projection).await.len(), 1);
    let rebuild = ["rebuild-lead", "9001", "7", "--yes"];
    assert!(projection.ground.run("projector", &rebuild).status.success());
    assert!(projection.ground.run("projector", &retry).status.success());
    assert!(letters(&projection).await.is_empty());
    projection.check().await;
}

#[tokio::test]
async fn a_user_whom_postgres_refuses_is_parked_and_holds_nobody_up() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    execute(&projection, "alter table monday_user add constraint no check (name <> 'Nobody')")
        .await;
    let user = |id: u64, name: &str| {
        json!({ "type": "user_snapshot", "user_id": id.to_string(), "name": name }).to_string()
    };
    projection
        .publish(&[user(1, "One"), user(2, "Nobody"), named(1, "good", 0), user(3, "Three")])
        .await;
    projection.settle().await;
    let parked = letters(&projection).await;
    assert!(parked.len() == 1 && parked[0].1.contains("constraint"), "{parked:?}");
    let names = async || -> Vec<String> {
        sqlx::query_scalar("select name from monday_user order by user_id")
            .fetch_all(&projection.ground.database.pool)
            .await
            .unwrap()
    };
    assert_eq!(names().await, ["One", "Three"]);
    assert_eq!(projection.leads().await[&(9001, 1)].name.as_deref(), Some("good"));
    execute(&projection, "alter table monday_user drop constraint no").await;
    execute(&projection, "update dead_letter set retry_requested_at = now()").await;
    eventually("the letter is applied", PATIENCE, async || {
        letters(&projection).await.is_empty().then_some(())
    })
    .await;
    assert_eq!(names().await, ["One", "Nobody", "Three"]);
}

#[tokio::test]
async fn a_retry_that_is_refused_again_leaves_the_letters_in_order() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    execute(&projection, POISON).await;
    projection.publish(&[named(1, "good", 0), poison(1, 1), poison(1, 2)]).await;
    projection.settle().await;
    let before = letters(&projection).await;
    execute(&projection, "update dead_letter set retry_requested_at = now()").await;
    eventually("the request is answered", PATIENCE, async || {
        let open: i64 = sqlx::query_scalar(
            "select count(*) from dead_letter where retry_requested_at is not null",
        )
        .fetch_one(&projection.ground.database.pool)
        .await
        .ok()?;
        (open == 0).then_some(())
    })
    .await;
    let after = letters(&projection).await;
    let seqs =
        |letters: &[(i64, String)]| letters.iter().map(|letter| letter.0).collect::<Vec<_>>();
    assert_eq!(seqs(&after), seqs(&before));
}

#[tokio::test]
async fn a_systemic_fault_pauses_the_projection_and_fills_no_table() {
    let mut projection =
        Projection::start(setup(&[("LEADPULSE_PROJECTOR_PARKED_LEADS_LIMIT", "10")])).await;
    projection.settle().await;
    execute(&projection, "alter table lead_fact add constraint poison check (name is null)").await;
    projection.publish(&(0..100).map(|item| named(item, "x", 0)).collect::<Vec<_>>()).await;
    let url = format!("{}/health/readiness", projection.projector.url());
    eventually("the projector pauses", PATIENCE, async || {
        let text = reqwest::get(&url).await.ok()?.text().await.ok()?;
        text.contains("were refused within ten minutes").then_some(())
    })
    .await;
    assert!(letters(&projection).await.len() <= 10);
    execute(&projection, "alter table lead_fact drop constraint poison").await;
    execute(&projection, "update dead_letter set retry_requested_at = now()").await;
    eventually("everything is applied", PATIENCE, async || {
        letters(&projection).await.is_empty().then_some(())
    })
    .await;
    projection.check().await;
}

/// Three attempts more.
async fn tries_again(projection: &Projection) {
    let attempts = || projection.projector.log_text().matches("lease taken").count();
    let before = attempts();
    wait_until("it tries again", PATIENCE, async || {
        let answer = projection.projector.page("/health/readiness").await;
        assert_eq!(answer.status, 503, "it is not past the fault");
        attempts() >= before + 3
    })
    .await;
}

/// Between two attempts nothing is wrong with the process, and the next one begins like any other.
#[tokio::test]
async fn who_stands_still_is_not_ready_before_it_is_past_the_fault_and_status_says_why() {
    let mut projection =
        Projection::start(setup(&[("LEADPULSE_PROJECTOR_PARKED_LEADS_LIMIT", "10")])).await;
    projection.settle().await;
    execute(&projection, "alter table lead_fact add constraint poison check (name is null)").await;
    projection.publish(&(0..100).map(|item| named(item, "x", 0)).collect::<Vec<_>>()).await;
    let said = eventually("the projector stands still", PATIENCE, async || {
        let text = projection.projector.page("/health/readiness").await.body;
        text.contains("refused within ten minutes").then_some(text)
    })
    .await;
    assert!(said.contains("violates check constraint"), "the cause is named: {said}");
    tries_again(&projection).await;
    let status = projection.ground.run("projector", &["status"]);
    let text = String::from_utf8_lossy(&status.stdout);
    assert_eq!(status.status.code(), Some(1));
    assert!(text.contains("! the projection stands still since"), "{text}");
    assert!(text.contains("violates check constraint") && text.contains("→ mend"), "{text}");
    assert!(!text.contains("start `projector`"), "{text}");
    // Nor is the next process, or one that stands by.
    projection.projector.kill_and_restart();
    tries_again(&projection).await;

    execute(&projection, "alter table lead_fact drop constraint poison").await;
    projection.projector.wait_until_ready().await;
    let applied: i64 =
        sqlx::query_scalar("select min(seq) from checkpoint where projection = 'main'")
            .fetch_one(&projection.ground.database.pool)
            .await
            .unwrap();
    assert!(applied > 0, "ready, and nothing was projected");
    execute(&projection, "update dead_letter set retry_requested_at = now()").await;
    eventually("everything is applied", PATIENCE, async || {
        letters(&projection).await.is_empty().then_some(())
    })
    .await;
    projection.check().await;
    assert_eq!(projection.ground.run("projector", &["status"]).status.code(), Some(0));
}
