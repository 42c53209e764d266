//! The bare publish: as many tasks as there are connections, each awaiting its acknowledgement.

use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use leadpulse_nats::streams;
use tokio::{task::JoinSet, time::Instant};

use super::pace::{Figures, Pace};

/// What ingest makes of a body of 1 KB: the envelope around it, and its headers.
const ENVELOPE_BYTES: usize = super::BODY_BYTES + 200;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Acknowledged messages: as many as go, or `rate` of them a second.
pub(super) async fn run(url: &str, tasks: usize, span: Duration, rate: Option<f64>) -> Figures {
    let client = async_nats::connect(url).await.unwrap();
    let jetstream =
        jetstream::context::ContextBuilder::new().max_ack_inflight(1 << 20).build(client);
    let _ = jetstream.delete_stream(streams::EVENTS).await;
    jetstream.create_stream(streams::events(1).unwrap()).await.unwrap();
    let payload = bytes::Bytes::from("x".repeat(ENVELOPE_BYTES));
    let began = Instant::now();
    let mut set = JoinSet::new();
    for task in 0..tasks {
        let (jetstream, payload) = (jetstream.clone(), payload.clone());
        set.spawn(async move {
            let (mut pace, mut times) = (Pace::new(rate, task, tasks, began), Vec::new());
            while began.elapsed() < span {
                let from = pace.turn().await;
                let mut headers = HeaderMap::new();
                headers.insert("Nats-Msg-Id", format!("bench:503:{task:016x}{:016x}", times.len()));
                headers.insert("traceparent", TRACEPARENT);
                let subject = "leadpulse.events.bench.9001.update_name";
                let sent = jetstream.publish_with_headers(subject, headers, payload.clone()).await;
                sent.unwrap().await.unwrap();
                times.push(from.elapsed());
            }
            times
        });
    }
    let figures = Figures::of(set.join_all().await.concat(), began.elapsed());
    jetstream.delete_stream(streams::EVENTS).await.unwrap();
    figures
}
