//! Whatever is killed in the middle, nothing is lost and nothing is counted twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use tests::{
    generate::{Size, seeded_history},
    harness::{App, PATIENCE, Setup, agree, wait_until},
};
use tokio::task::block_in_place;

/// Parts of one history; something dies before each but the first.
async fn parts(app: &App, seed: u64, count: usize) -> Vec<Vec<String>> {
    let now = chrono::Utc::now().timestamp_micros();
    let size = Size { items: 12, events: 250..251 };
    let events = seeded_history(&app.ground.rules, &size, now, seed);
    events.chunks(events.len().div_ceil(count)).map(<[String]>::to_vec).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_may_die_at_any_time() {
    let mut app = App::start().await;
    let parts = parts(&app, 21, 5).await;
    app.ingest.deliver_all(&parts[0]).await;
    app.ingest.kill_and_restart();
    app.ingest.deliver_all(&parts[1]).await;
    app.projector.kill9();
    // What comes while the projector is away waits in the stream.
    app.ingest.deliver_all(&parts[2]).await;
    app.projector.restart().unwrap();
    app.ingest.deliver_all(&parts[3]).await;
    app.projector.kill_and_restart();
    app.query_api.kill_and_restart();
    let seq = app.ingest.deliver_all(&parts[4]).await;
    app.wait_until_ready().await;
    agree(&app, seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_may_die_at_any_time() {
    let mut app = App::start_with(Setup { own_postgres: true, ..Setup::default() }).await;
    let parts = parts(&app, 22, 5).await;
    app.ingest.deliver_all(&parts[0]).await;
    app.ground.nats.kill9();
    app.ground.nats.restart().unwrap();
    app.ingest.deliver_all(&parts[1]).await;
    app.ground.database.server().kill9();
    // ingest needs no Postgres.
    app.ingest.deliver_all(&parts[2]).await;
    app.ground.database.server().restart().unwrap();
    app.ingest.deliver_all(&parts[3]).await;
    app.ground.redis.as_mut().unwrap().kill9();
    app.ground.nats.kill9();
    app.ground.nats.restart().unwrap();
    app.ground.redis.as_mut().unwrap().restart().unwrap();
    let seq = app.ingest.deliver_all(&parts[4]).await;
    app.wait_until_ready().await;
    agree(&app, seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_dies_at_once_and_comes_back() {
    let mut app = App::start_with(Setup { own_postgres: true, ..Setup::default() }).await;
    let parts = parts(&app, 23, 2).await;
    app.ingest.deliver_all(&parts[0]).await;
    app.projector.kill9();
    app.ground.database.server().kill9();
    app.ground.nats.kill9();
    app.query_api.kill9();
    app.ingest.kill9();
    app.ground.nats.restart().unwrap();
    app.ground.database.server().restart().unwrap();
    app.projector.restart().unwrap();
    app.ingest.restart().unwrap();
    app.query_api.restart().unwrap();
    let seq = app.ingest.deliver_all(&parts[1]).await;
    app.wait_until_ready().await;
    agree(&app, seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_keep_coming_while_everybody_else_dies() {
    let mut app = App::start_with(Setup { own_postgres: true, ..Setup::default() }).await;
    let events = parts(&app, 24, 1).await.concat();
    let App { ingest, projector, query_api, ground, .. } = &mut app;
    let delivered = AtomicUsize::new(0);
    let deliver = stream::iter(&events).for_each_concurrent(8, async |event| {
        ingest.deliver(event).await;
        delivered.fetch_add(1, Ordering::Relaxed);
    });
    let reached = async |part: usize| {
        let count = events.len() * part / 8;
        let enough = async || delivered.load(Ordering::Relaxed) >= count;
        wait_until(&format!("{count} webhooks are taken in"), PATIENCE, enough).await;
    };
    let kill = async {
        reached(1).await;
        block_in_place(|| ground.nats.kill9());
        block_in_place(|| ground.nats.restart()).unwrap();
        reached(3).await;
        block_in_place(|| projector.kill_and_restart());
        reached(4).await;
        block_in_place(|| ground.database.server().kill9());
        reached(5).await;
        block_in_place(|| ground.database.server().restart()).unwrap();
        reached(6).await;
        block_in_place(|| query_api.kill_and_restart());
        block_in_place(|| ground.nats.kill9());
        block_in_place(|| ground.nats.restart()).unwrap();
    };
    tokio::join!(deliver, kill);
    app.wait_until_ready().await;
    let seq = app.ground.stream().await.last().unwrap().seq;
    agree(&app, seq).await;
}
