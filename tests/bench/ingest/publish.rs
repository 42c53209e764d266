//! The bare publish: as many tasks as there are connections, each awaiting its acknowledgement.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::{HeaderMap, jetstream};
use leadpulse_nats::streams;
use tokio::task::JoinSet;

/// What ingest makes of a body of 1 KB: the envelope around it, and its headers.
const ENVELOPE_BYTES: usize = super::BODY_BYTES + 200;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Acknowledged messages a second.
pub(super) async fn run(url: &str, tasks: usize, span: Duration) -> f64 {
    let client = async_nats::connect(url).await.unwrap();
    let jetstream =
        jetstream::context::ContextBuilder::new().max_ack_inflight(1 << 20).build(client);
    let _ = jetstream.delete_stream(streams::EVENTS).await;
    jetstream.create_stream(streams::events(1).unwrap()).await.unwrap();
    let payload = bytes::Bytes::from("x".repeat(ENVELOPE_BYTES));
    let done = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut set = JoinSet::new();
    for task in 0..tasks {
        let (jetstream, payload, done) = (jetstream.clone(), payload.clone(), Arc::clone(&done));
        set.spawn(async move {
            for n in 0_u64.. {
                if began.elapsed() >= span {
                    return;
                }
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Msg-Id", format!("bench:503:{task:016x}{n:016x}"));
                headers.insert("traceparent", TRACEPARENT);
                let subject = "leadpulse.events.bench.9001.update_name";
                let sent = jetstream.publish_with_headers(subject, headers, payload.clone()).await;
                sent.unwrap().await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    set.join_all().await;
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    jetstream.delete_stream(streams::EVENTS).await.unwrap();
    rate
}
