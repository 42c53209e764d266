//! `GET /v1/consistency`: how far the read models are, and how far they could be.

use std::time::Duration;

use async_nats::{
    jetstream,
    jetstream::stream::{DirectGetErrorKind, Stream},
};
use axum::{
    Json,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream};
use leadpulse_nats::{Envelope, streams::EVENTS};
use projector::reader::envelope_of;
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    asked::Asked,
    auth::Scope,
    cache::Origin,
    db::{self, Snapshot},
    header::{AS_OF, CACHE_STATUS, SEQ},
    problem::Problem,
    value::{instant, seconds},
};

/// The stream is asked for this long; without an answer the head is unknown.
const HEAD: Duration = Duration::from_millis(500);
/// And this long for the messages about one lead, so many at the same time.
const MESSAGES: Duration = Duration::from_secs(2);
const AT_ONCE: usize = 32;

/// The stream of record, seen from here: how far it is, and single messages of it.
pub(crate) struct Head {
    client: async_nats::Client,
    jetstream: jetstream::Context,
}

impl Head {
    /// Connects in the background, now or whenever NATS is there.
    pub(crate) async fn connect(url: &str) -> Result<Self, async_nats::ConnectError> {
        let options = async_nats::ConnectOptions::new().name("leadpulse query-api");
        let client = options.retry_on_initial_connect().connect(url).await?;
        Ok(Self { jetstream: jetstream::new(client.clone()), client })
    }

    pub(crate) fn jetstream(&self) -> jetstream::Context {
        self.jetstream.clone()
    }

    /// The version of the server, while there is a connection.
    pub(crate) fn server(&self) -> Option<String> {
        let connected = self.client.connection_state() == async_nats::connection::State::Connected;
        connected.then(|| self.client.server_info().version)
    }

    /// The last sequence, and when the first event after `applied` came.
    async fn look(&self, applied: i64) -> Option<(u64, Option<DateTime<Utc>>)> {
        let applied = u64::try_from(applied).ok()?;
        let looked = timeout(HEAD, async {
            let stream: Stream = self.jetstream.get_stream(EVENTS).await.ok()?;
            let last = stream.cached_info().state.last_sequence;
            if last <= applied {
                return Some((last, None));
            }
            let waiting = stream.get_raw_message(applied + 1).await.ok();
            let micros = waiting.map(|message| message.time.unix_timestamp_nanos() / 1000);
            let since = micros
                .and_then(|micros| DateTime::from_timestamp_micros(i64::try_from(micros).ok()?));
            Some((last, since))
        });
        looked.await.ok().flatten()
    }
}

/// One message of the stream.
pub(crate) struct Message {
    pub(crate) seq: u64,
    pub(crate) envelope: Envelope,
}

impl Head {
    /// The messages with these sequences, as far as the stream still has them; none if it does not answer.
    pub(crate) async fn messages(&self, seqs: &[u64]) -> Option<Vec<Message>> {
        let read = async {
            let stream = self.jetstream.get_stream_no_info(EVENTS).await.ok()?;
            let stream = &stream;
            let mut found = stream::iter(seqs.iter().copied())
                .map(async |seq| (seq, stream.direct_get(seq).await))
                .buffered(AT_ONCE);
            let mut messages = Vec::with_capacity(seqs.len());
            while let Some((seq, message)) = found.next().await {
                match message {
                    Ok(message) => {
                        let envelope = envelope_of(&message.payload).ok();
                        messages.extend(envelope.map(|envelope| Message { seq, envelope }));
                    }
                    Err(error) if error.kind() == DirectGetErrorKind::NotFound => {}
                    Err(_) => return None,
                }
            }
            Some(messages)
        };
        timeout(MESSAGES, read).await.ok().flatten()
    }
}

pub(crate) async fn consistency(asked: Asked) -> Result<Response, Problem> {
    let app = &asked.app;
    let caller = asked.caller([]).await?;
    if !caller.may(Scope::OpsRead) {
        caller.needs(Scope::Metrics)?;
    }
    let left = app.limits.admit(&caller, 1)?;
    let mut params = asked.params();
    let min_seq = params.number("min_seq", 0, i64::MAX).unwrap_or(0);
    let wait = params.number("wait_ms", 0, 5000_u64).unwrap_or(0);
    params.finish()?;
    let deadline = Instant::now() + Duration::from_millis(wait);
    // What is not there in time is told, not refused: this is the place to ask.
    match app.applied.wait(&app.pool, min_seq, deadline).await {
        Ok(()) | Err(Problem::Behind { .. }) => {}
        Err(problem) => return Err(problem),
    }
    let snapshot = Snapshot::open(&app.pool).await?;
    let applied = snapshot.seq;
    snapshot.close().await?;
    app.applied.note(applied);
    let head = app.head.look(applied).await;
    let now = db::now();
    let lag_events = head
        .map(|(last, _)| i64::try_from(last).unwrap_or(i64::MAX).saturating_sub(applied).max(0));
    let lag_seconds = head.map(|(_, since)| since.map_or(0.0, |at| seconds(now - at).max(0.0)));
    let answer = json!({
        "applied_seq": applied,
        "head_seq": head.map(|(last, _)| last),
        "lag_events": lag_events,
        "lag_seconds": lag_seconds,
        "reached": applied >= min_seq,
        "as_of": instant(now),
    });
    let mut response = Json(answer).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(CACHE_STATUS, Origin::Uncached.status());
    headers.insert(SEQ, HeaderValue::from(applied));
    if let Ok(at) = HeaderValue::try_from(instant(now)) {
        headers.insert(AS_OF, at);
    }
    left.tell(headers);
    Ok(response)
}
