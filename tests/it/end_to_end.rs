//! The whole way: signed webhooks of every type that monday.com sends, shuffled and repeated, in at the
//! door; what comes out over HTTP is what the naive implementation computes.

use tests::{
    generate::{Size, one_of_each_type, seeded_history},
    harness::{App, agree},
};

async fn the_whole_way(seed: u64) {
    let app = App::start().await;
    let now = chrono::Utc::now().timestamp_micros();
    let size = Size { items: 15, events: 450..451 };
    let events = seeded_history(&app.ground.rules, &size, now, seed);
    let events = [one_of_each_type(&app.ground.rules, now, seed), events].concat();
    let (first, rest) = events.split_at(events.len() / 2);
    // Once in the middle too: what was cached then must not be shown at the end.
    let seq = app.ingest.deliver_all(first).await;
    agree(&app, seq).await;
    let seq = app.ingest.deliver_all(rest).await;
    agree(&app, seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_of_every_type_give_what_the_page_says() {
    the_whole_way(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_webhooks_give_what_the_page_says_too() {
    the_whole_way(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn and_so_do_many_more_in_a_long_run() {
    if std::env::var_os("LEADPULSE_TEST_LONG").is_none() {
        return;
    }
    for seed in 100..140 {
        eprintln!("seed {seed}");
        the_whole_way(seed).await;
    }
}
