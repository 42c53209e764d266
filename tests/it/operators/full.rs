use std::fs;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;
use tests::harness::{App, PATIENCE, Projection, Setup, eventually};

use super::{history, operate, setup};

fn findings(projection: &Projection) -> String {
    let status = operate(projection, &["status", "--json"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    status["findings"].to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_refuses_with_503_forgets_nothing_and_goes_on_when_there_is_room() {
    let app = App::start_with(Setup { redis: false, ..Setup::default() }).await;
    let events = history(5, 40, 91);
    let seq = app.ingest.deliver_all(&events[..20]).await;
    let client = async_nats::connect(app.ground.nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut stream = jetstream.get_stream("LEADPULSE_EVENTS").await.unwrap();
    let room = stream.info().await.unwrap().config.clone();
    let full = async_nats::jetstream::stream::Config { max_bytes: 1, ..room.clone() };
    jetstream.update_stream(&full).await.unwrap();
    let refused = app.ingest.post_event(&events[20]).await.unwrap();
    assert_eq!((refused.status, refused.body.as_str()), (503, ""));
    assert_eq!(app.ground.stream().await.last().unwrap().seq, seq, "nothing is forgotten");
    let status = app.ground.run("projector", &["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(said.contains("the stream is full") && status.status.code() == Some(1), "{said}");
    jetstream.update_stream(&room).await.unwrap();
    eventually("there is room again", PATIENCE, async || {
        let answer = app.ingest.post_event(&events[20]).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

/// A bound on the size of its files lets its writes fail as a full disk does, and nobody has to be root.
#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_can_not_write_is_named_by_status_with_its_monitoring_page() {
    let mut projection = Projection::start(Setup { nats_monitor: true, ..setup() }).await;
    projection.publish(&history(5, 40, 92)).await;
    projection.settle().await;
    assert_eq!(findings(&projection), "[]");
    let server = Pid::from_raw(projection.ground.nats.pid().cast_signed());
    let little = Rlimit { current: Some(1000), maximum: Some(1000) };
    prlimit(server, Resource::Fsize, little).unwrap();
    let jetstream = projection.jetstream().await;
    jetstream.publish("leadpulse.events.demo.9001.other", "x".repeat(5000).into()).await.unwrap();
    let said = eventually("status says so", PATIENCE, async || {
        let said = findings(&projection);
        (said != "[]").then_some(said)
    })
    .await;
    assert!(said.contains("nats-server can't write") && said.contains("write error"), "{said}");
    assert!(said.contains("restart nats-server"), "{said}");
    projection.ground.nats.kill9();
    let said = findings(&projection);
    assert!(said.contains("start nats-server") && !said.contains("nats.monitor"), "{said}");
}

/// A file where the folder of its temporary files should be lets Postgres fail as a full disk does.
#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_answers_and_can_not_write_is_named_by_status() {
    let projection = Projection::start(Setup { own_postgres: true, ..setup() }).await;
    projection.settle().await;
    assert_eq!(findings(&projection), "[]");
    let pool = &projection.ground.database.pool;
    let data: String = sqlx::query_scalar("show data_directory").fetch_one(pool).await.unwrap();
    let folder = format!("{data}/base/pgsql_tmp");
    fs::remove_dir_all(&folder).ok();
    fs::write(&folder, "").unwrap();
    let said = findings(&projection);
    assert!(said.contains("Postgres can't write") && said.contains("free space"), "{said}");
    fs::remove_file(&folder).unwrap();
    assert_eq!(findings(&projection), "[]");

    sqlx::raw_sql("do $$ begin execute format('alter database %I set default_transaction_read_only = on', current_database()); end $$")
        .execute(pool)
        .await
        .unwrap();
    let said = findings(&projection);
    assert!(said.contains("Postgres takes no writes") && !said.contains("nobody"), "{said}");
}
