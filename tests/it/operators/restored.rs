//! Dead letters after the stream was lost and made anew from an export: the same sequences are other events.

use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use tests::{
    harness::{PATIENCE, Projection, wait_until},
    naive::Arrival,
};

use super::{
    dead_letters::{FIXED, POISON, execute, named, poison, sequence_of, waiting},
    history, json, setup,
    transfer::tempfile,
};

/// Letters that wait and one that was skipped, all of a stream that is gone. The new one begins with other
/// events, then has those of the export, and lacks the last one, which the export is too old for.
async fn restored() -> Projection {
    let mut projection = Projection::start(setup()).await;
    projection.settle().await;
    execute(&projection, POISON).await;
    let (waits, skipped) = (poison(1, 1), poison(2, 1));
    let events =
        [named(1, "good", 0), waits, named(2, "good", 0), skipped.clone(), named(1, "later", 2)];
    projection.publish(&events).await;
    projection.settle().await;
    let seq = sequence_of(&projection, &skipped).to_string();
    json(&projection, 0, &["dead-letters", "skip", "--seq", &seq, "--reason", "test", "--yes"]);
    let folder = tempfile();
    let file = format!("{folder}/all.ndjson.zst");
    json(&projection, 0, &["export", "--output", &file]);
    let before = std::mem::take(&mut projection.arrivals);
    projection.publish(&[poison(20, 1)]).await;
    projection.settle().await;
    assert_eq!(waiting(&projection).await, 3);

    projection.jetstream().await.delete_stream("LEADPULSE_EVENTS").await.unwrap();
    tests::harness::create_stream(&projection.ground).await;
    projection.arrivals.clear();
    // The second takes the sequence of a letter that waits, the fourth that of the one that was skipped.
    let others = [named(10, "new", 0), poison(10, 1), named(12, "new", 0), named(13, "new", 0)];
    projection.publish(&others).await;
    let imported = json(&projection, 0, &["import", &file, "--yes", "--reason", "lost"]);
    let first = imported["first_seq"].as_u64().unwrap();
    let copies = before.into_iter().zip(first..).map(|(copy, seq)| Arrival { seq, ..copy });
    projection.arrivals.extend(copies);
    std::fs::remove_dir_all(folder).unwrap();
    projection
}

/// The new stream's letters wait, of the old one's only what is nowhere else, and once mended everything is
/// as if there had been one stream, without the event that was skipped in the first. Rows that were adopted
/// remember sequences of the old stream beside those of the new one, which `verify` finds.
async fn recovers(mut projection: Projection, adopted: bool) {
    projection.settle().await;
    let groups = json(&projection, 0, &["dead-letters", "list"]);
    let groups = groups.as_array().unwrap();
    let count = |earlier: bool| {
        let groups = groups.iter().filter(|group| group["earlier_stream"] == earlier);
        groups.map(|group| group["letters"].as_i64().unwrap()).sum::<i64>()
    };
    assert_eq!((count(false), count(true)), (3, 1), "{groups:?}");
    let shown = |words: &[&str]| json(&projection, 0, &[&["dead-letters", "show"], words].concat());
    assert_eq!(shown(&["2"])["item_id"], 10);
    let gone: Value = shown(&["2", "--earlier"]);
    assert_eq!((&gone["item_id"], &gone["resolution"]), (&1.into(), &"in the stream again".into()));
    json(&projection, i32::from(adopted), &["verify"]);

    execute(&projection, FIXED).await;
    // A swap lets the projector begin again.
    wait_until("somebody projects", PATIENCE, async || {
        json(&projection, 1, &["status"])["projection"]["owner"]["alive"] == true
    })
    .await;
    let retried = json(&projection, 0, &["dead-letters", "retry", "--all", "--yes"]);
    assert_eq!((&retried["applied"], &retried["published"]), (&3.into(), &1.into()), "{retried}");
    let skipped = sequence_of(&projection, &poison(2, 1));
    let seq = projection.last_seq() + 1;
    let received_at = chrono::Utc::now().timestamp_micros();
    projection.arrivals.push(Arrival { seq, received_at, event: poison(20, 1) });
    projection.arrivals.retain(|arrival| arrival.seq != skipped);
    projection.check().await;
    assert_eq!(waiting(&projection).await, 0);
    for lead in ["1", "2"] {
        json(&projection, 0, &["rebuild-lead", "9001", lead, "--yes"]);
    }
    projection.check().await;
    json(&projection, 0, &["verify"]);
}

#[tokio::test]
async fn letters_of_a_stream_that_is_gone_mean_no_events_of_the_one_that_was_adopted() {
    let projection = restored().await;
    json(&projection, 0, &["pause", "--reason", "test", "--yes"]);
    let at = json(&projection, 0, &["checkpoint", "show"])["applied_seq"].to_string();
    let words = ["checkpoint", "set", "0", "--expect", &at, "--reason", "test", "--adopt-stream"];
    json(&projection, 0, &[&words[..], &["--yes"]].concat());
    json(&projection, 0, &["resume"]);
    recovers(projection, true).await;
}

#[tokio::test]
async fn letters_of_a_stream_that_is_gone_mean_no_events_of_the_one_that_was_rebuilt_from() {
    let projection = restored().await;
    json(&projection, 0, &["rebuild", "start", "--swap", "--yes"]);
    recovers(projection, false).await;
}

async fn make_database_anew(projection: &Projection, how: &str) {
    let (server, name) = projection.ground.database.url().rsplit_once('/').unwrap();
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await.unwrap();
    let (drop, create) =
        (format!("drop database {name} with (force)"), format!("create database {name} {how}"));
    for what in [drop, create] {
        admin.execute(sqlx::AssertSqlSafe(what)).await.unwrap();
    }
}

/// Nothing but the stream is left, and nobody types anything.
#[tokio::test]
async fn a_lost_database_is_made_anew_from_the_stream() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(20, 400, 45)).await;
    projection.check().await;
    make_database_anew(&projection, "").await;
    projection.publish(&history(20, 100, 46)).await;
    projection.check().await;
    assert_eq!(json(&projection, 0, &["verify"])["equal"], true);
    json(&projection, 0, &["status"]);
}

/// As Postgres makes it in many a container. All else is right there.
#[tokio::test]
async fn a_database_that_knows_no_letters_beyond_ascii_is_told_and_cured_as_is_said() {
    let mut projection = Projection::start(setup()).await;
    for (how, exit) in
        [("locale 'C' template template0", 1), ("locale 'C.UTF-8' template template0", 0)]
    {
        make_database_anew(&projection, how).await;
        projection.publish(&history(20, 100, 47)).await;
        projection.check().await;
        let told = json(&projection, exit, &["status"])["findings"].to_string();
        assert_eq!(told.contains("knows ASCII only"), exit == 1, "{told}");
    }
}
