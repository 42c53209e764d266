//! Redis makes reads cheaper, never wrong: off, dead or gone in the middle.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tests::{
    generate::{Size, seeded_history},
    harness::{App, PATIENCE, Setup, agree, wait_until},
};

async fn deliver(app: &App, seed: u64) -> u64 {
    let now = chrono::Utc::now().timestamp_micros();
    let size = Size { items: 10, events: 120..121 };
    app.ingest.deliver_all(&seeded_history(&app.ground.rules, &size, now, seed)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_everything_works() {
    let app = App::start_with(Setup { redis: false, ..Setup::default() }).await;
    let seq = deliver(&app, 31).await;
    agree(&app, seq).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_read_fails_when_redis_is_killed_while_reads_run() {
    let mut app = App::start().await;
    let seq = deliver(&app, 32).await;
    app.get_at("/v1/leads", seq).await;
    let mut redis = app.ground.redis.take().unwrap();

    let (done, reads) = (AtomicBool::new(false), AtomicUsize::new(0));
    let reader = async |path: &str| {
        while !done.load(Ordering::Relaxed) {
            let answer = app.get(path).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            reads.fetch_add(1, Ordering::Relaxed);
        }
    };
    let more = async |count: usize| {
        let from = reads.load(Ordering::Relaxed);
        wait_until("reads go on", PATIENCE, async || reads.load(Ordering::Relaxed) >= from + count)
            .await;
    };
    let killer = async {
        more(50).await;
        tokio::task::block_in_place(|| redis.kill9());
        more(200).await;
        // New data while Redis is away: what was cached before must not be shown for them.
        let seq = deliver(&app, 33).await;
        app.get_at("/v1/leads", seq).await;
        tokio::task::block_in_place(|| redis.restart()).unwrap();
        more(200).await;
        done.store(true, Ordering::Relaxed);
        seq
    };
    let (_, _, _, seq) = tokio::join!(
        reader("/v1/leads?limit=20"),
        reader("/v1/agents/leaderboard?window=30d"),
        reader("/v1/kpis/summary?window=90d"),
        killer
    );
    agree(&app, seq).await;
}
