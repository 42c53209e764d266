use std::time::{Duration, Instant};

use leadpulse_nats::streams;
use tests::harness::{PATIENCE, Projection, create_stream, eventually, wait_until};

use super::{history, poison::named, setup};

/// Why the projector is not ready, once it says so.
async fn fault(projection: &Projection, wanted: &str) -> String {
    let url = format!("{}/health/readiness", projection.projector.url());
    eventually(&format!("the projector reports: {wanted}"), PATIENCE, async || {
        let answer = reqwest::get(&url).await.ok()?;
        let text = answer.text().await.ok()?;
        text.contains(wanted).then_some(text)
    })
    .await
}

#[tokio::test]
async fn a_recreated_stream_is_a_fault_and_never_a_skip() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(10, 100, 14)).await;
    projection.check().await;
    let before = projection.leads().await;
    projection.jetstream().await.delete_stream(streams::EVENTS).await.unwrap();
    create_stream(&projection.ground).await;
    let known = std::mem::take(&mut projection.arrivals);
    projection.publish(&history(10, 300, 15)).await;
    fault(&projection, "was recreated").await;
    projection.projector.kill_and_restart();
    fault(&projection, "was recreated").await;
    assert_eq!(projection.leads().await, before, "nothing of the new stream was applied");
    drop(known);
}

#[tokio::test]
async fn a_stream_trimmed_below_the_position_is_a_fault_and_never_a_skip() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(10, 100, 16)).await;
    projection.settle().await;
    projection.projector.kill9();
    let before = projection.leads().await;
    projection.publish(&history(10, 100, 17)).await;
    let stream = projection.jetstream().await.get_stream(streams::EVENTS).await.unwrap();
    stream.purge().sequence(projection.last_seq() - 5).await.unwrap();
    projection.projector.restart().unwrap();
    fault(&projection, "events between them are gone").await;
    assert_eq!(projection.leads().await, before);
}

#[tokio::test]
async fn a_purge_under_the_reader_is_a_fault_and_never_a_skip() {
    // A frozen owner must not lose its lease, or it would begin again from its position.
    let mut projection =
        Projection::start(setup(&[("LEADPULSE_PROJECTOR_LEASE_TTL_MS", "60000")])).await;
    projection.publish(&history(10, 100, 20)).await;
    projection.settle().await;
    projection.projector.signal("STOP");
    projection.publish(&history(200, 6000, 21)).await;
    let kept_from = projection.last_seq() - 5;
    let stream = projection.jetstream().await.get_stream(streams::EVENTS).await.unwrap();
    stream.purge().sequence(kept_from).await.unwrap();
    projection.projector.signal("CONT");
    fault(&projection, "events between them are gone").await;
    let applied: i64 = sqlx::query_scalar("select max(last_seq) from lead_fact")
        .fetch_one(&projection.ground.database.pool)
        .await
        .unwrap();
    assert!(u64::try_from(applied).unwrap() < kept_from, "{applied} is behind the gap");
}

/// A server that has forgotten the consumer, or a connection that swallows: nothing comes, and no error.
#[tokio::test]
async fn a_silent_consumer_is_noticed_and_replaced() {
    let mut projection = beside_fail_point("reader-silent=1*return->off").await;
    let events = history(10, 100, 24);
    projection.publish(&events[..1]).await;
    wait_until("the silence is noticed", PATIENCE, async || {
        projection.projector.log_text().contains("the consumer is silent")
    })
    .await;
    projection.publish(&events[1..]).await;
    projection.check().await;
}

#[tokio::test]
async fn a_consumer_that_leaves_something_out_is_noticed_and_replaced() {
    let mut projection = beside_fail_point("reader-silent=1*off->1*return->off").await;
    // Until one is left out that another one comes after: in a chunk of its own, so after a while.
    let began = Instant::now();
    for n in 0.. {
        projection.publish(&[named(7, &format!("name {n}"), n)]).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        if projection.projector.log_text().contains("the consumer left out") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "nothing is noticed");
    }
    projection.check().await;
}

async fn beside_fail_point(point: &str) -> Projection {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    projection.projector.kill9();
    projection.projector.set("FAILPOINTS", point);
    projection.projector.restart().unwrap();
    wait_until("it projects again", PATIENCE, async || {
        projection.projector.log_text().matches("lease taken").count() == 2
    })
    .await;
    projection
}

#[tokio::test]
async fn messages_that_were_deleted_are_passed_over() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(10, 100, 27)).await;
    projection.settle().await;
    projection.projector.kill9();
    let (before, deleted) = (projection.arrivals.len(), projection.last_seq() + 2);
    projection.publish(&history(10, 100, 28)).await;
    let stream = projection.jetstream().await.get_stream(streams::EVENTS).await.unwrap();
    assert!(stream.delete_message(deleted).await.unwrap());
    projection.arrivals.retain(|arrival| arrival.seq != deleted);
    assert!(projection.arrivals.len() > before);
    projection.projector.restart().unwrap();
    projection.check().await;
}

/// Ready is who works, however far behind: a flapping projector would be restarted for ever.
#[tokio::test]
async fn readiness_does_not_flap_while_the_projector_catches_up() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    projection.projector.kill9();
    projection.publish(&history(100, 4000, 25)).await;
    projection.projector.restart().unwrap();
    let url = format!("{}/health/readiness", projection.projector.url());
    let ready = async || reqwest::get(&url).await.is_ok_and(|answer| answer.status() == 200);
    wait_until("it is ready", PATIENCE, ready).await;
    let done = projection.settle();
    tokio::pin!(done);
    loop {
        tokio::select! {
            () = &mut done => break,
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                assert!(ready().await, "ready, and then not");
            }
        }
    }
    projection.check().await;
}

#[tokio::test]
async fn a_purge_of_what_is_applied_is_no_fault() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(10, 100, 18)).await;
    projection.settle().await;
    let stream = projection.jetstream().await.get_stream(streams::EVENTS).await.unwrap();
    stream.purge().sequence(projection.last_seq()).await.unwrap();
    projection.projector.kill_and_restart();
    projection.publish(&history(10, 100, 19)).await;
    projection.check().await;
}

/// The age of what waits, also while events come without a pause.
#[tokio::test]
async fn the_lag_in_seconds_is_the_age_of_the_first_event_that_waits() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let url = format!("{}/metrics", projection.projector.url());
    let lag = async || -> f64 {
        let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("projector_lag_seconds "));
        line.map_or(0.0, |value| value.parse().unwrap())
    };
    let mut worst: f64 = 0.0;
    for part in history(20, 1500, 29).chunks(5) {
        projection.publish(part).await;
        worst = worst.max(lag().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(worst < 2.5, "{worst} s behind under a load that it can bear");
    projection.settle().await;
    let mut lock = projection.ground.database.pool.begin().await.unwrap();
    sqlx::query("lock table lead_fact in share mode").execute(&mut *lock).await.unwrap();
    projection.publish(&[named(7, "waits", 1)]).await;
    wait_until("the age is told", PATIENCE, async || lag().await > 3.0).await;
    assert!(lag().await < 10.0);
    lock.rollback().await.unwrap();
    wait_until("nothing waits", PATIENCE, async || lag().await == 0.0).await;
    projection.check().await;
}
