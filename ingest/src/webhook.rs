//! The life of one webhook: read, answer a challenge, verify, understand, publish, answer.

use std::{
    any::Any,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::HttpBody,
    http::{HeaderMap, Method, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::Utc;
use leadpulse_nats::Kind;
use leadpulse_service::trace::{TRACEPARENT, TraceContext};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use crate::{
    answer::Refusal,
    event::Record,
    http::{
        Address, Door, InFlight,
        body::{self, Taken},
    },
    publish::Stored,
    quarantine::Refused,
    source::{self, Source},
    verify::{Proof, Unverified},
};

pub(crate) mod aside;
mod challenge;
#[cfg(test)]
mod cost;

use challenge::Challenge;

/// What a webhook came to.
enum Done {
    Challenge(Challenge),
    Stored(Stored, Kind),
}

/// A webhook on its way through.
struct Webhook {
    /// The key in the URL, as it may be shown.
    key: String,
    source: Arc<Source>,
    /// Nobody has this key; the source only takes the time that a real one takes.
    stranger: bool,
    proof: Proof,
    /// As far as it has been read.
    body: Bytes,
    /// When all of it was there; until then, when the head was.
    read_at: Instant,
    /// What the body takes of the memory, until the answer.
    room: Taken,
    trace: TraceContext,
}

pub(crate) async fn receive<B>(door: &Door, address: Address, request: Request<B>) -> Response
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    let began = Instant::now();
    let _counted = InFlight::count(door.meters.in_flight.clone());
    let (parts, body) = request.into_parts();
    let Address { source: key, token } = address;
    let (source, key, stranger) = {
        let secrets = door.secrets.borrow();
        let (source, stranger) = secrets.sources.of(&key);
        (source, if stranger { secrets.sources.shown(&key) } else { key }, stranger)
    };
    let trace = TraceContext::continue_or_start(text(&parts.headers, TRACEPARENT));
    let proof = Proof::new(parts.headers, token.as_deref());
    let (body_read, room) = (Bytes::new(), door.room.for_one());
    let mut webhook =
        Webhook { key, source, stranger, proof, body: body_read, read_at: began, room, trace };
    let outcome = match check_head(&parts.method, &webhook.proof.headers) {
        Ok(()) => webhook.take(door, body).await,
        Err(refusal) => {
            body::discard(body).await;
            Err(refusal)
        }
    };
    if let Err(refusal) = outcome {
        door.quarantine.keep(webhook.refused(refusal)).await;
    }
    account(&door.meters, &webhook, began, &outcome);
    if outcome.as_ref().is_err_and(|refusal| refusal.is_of_nobody_known()) {
        webhook.forget_body();
        next_beat(webhook.read_at).await;
    }
    match outcome {
        Ok(Done::Challenge(challenge)) => Json(challenge).into_response(),
        Ok(Done::Stored(stored, _)) => stored.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl Webhook {
    async fn take<B>(&mut self, door: &Door, body: B) -> Result<Done, Refusal>
    where
        B: HttpBody<Data = Bytes> + Unpin,
    {
        self.body = body::read(body, door.read_within, &door.room, &mut self.room).await?;
        self.read_at = Instant::now();
        let received_at = Utc::now();
        if let (false, Some(challenge)) = (self.stranger, Challenge::of(&self.body)) {
            return Ok(Done::Challenge(challenge));
        }
        let (source, body) = (Arc::clone(&self.source), self.body.clone());
        let unverified = Unverified { source, body, received_at, proof: &self.proof };
        let verified = match unverified.verify() {
            Ok(verified) => verified,
            Err(_) if self.stranger => return Err(Refusal::UnknownSource),
            Err(rejected) => return Err(Refusal::Unauthorized(rejected)),
        };
        if !self.source.admits_one_more() {
            return Err(Refusal::TooMany);
        }
        let record = Record::of(&verified)?;
        let stored = door.publisher.publish(&record, &self.trace).await?;
        Ok(Done::Stored(stored, record.kind().clone()))
    }

    /// It keeps nobody else's out while its answer waits.
    fn forget_body(&mut self) {
        self.body = Bytes::new();
        self.room.give_back();
    }

    fn refused(&self, refusal: Refusal) -> Refused<'_> {
        let Self { key, source, stranger, proof, body, trace, .. } = self;
        let body = body.clone();
        Refused { refusal, source, key, stranger: *stranger, proof, body, trace }
    }
}

/// Who is not believed is answered on a beat, counted from when the body was there. The time of an answer must
/// not tell which sources there are, and to check a proof and to keep what was refused takes as long as the
/// source's scheme and the body want.
const BEAT: Duration = Duration::from_millis(100);

async fn next_beat(since: Instant) {
    let beats = since.elapsed().as_millis() / BEAT.as_millis() + 1;
    let next = BEAT.saturating_mul(u32::try_from(beats).unwrap_or(u32::MAX));
    sleep(next.saturating_sub(since.elapsed())).await;
}

/// What can be said before the body is read.
fn check_head(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
    if method != Method::POST {
        return Err(Refusal::Method);
    }
    // Bodies are kept byte for byte and verified as they come: nothing is unpacked here.
    let plain = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"));
    plain.then_some(()).ok_or(Refusal::Encoding)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What every webhook counts in, looked up once.
pub(crate) struct Meters {
    in_flight: Gauge,
    stored_within: Histogram,
    by_kind: HashMap<&'static str, Counter>,
}

impl Meters {
    pub(crate) fn new() -> Self {
        Self {
            in_flight: gauge!("ingest_webhooks_in_flight"),
            stored_within: histogram!("ingest_webhook_duration_seconds", "outcome" => "stored"),
            by_kind: Kind::KNOWN.iter().map(|kind| (kind.token(), count_kind(kind))).collect(),
        }
    }

    fn count(&self, kind: &Kind) {
        match self.by_kind.get(kind.token()) {
            Some(counter) => counter.increment(1),
            None => count_kind(kind).increment(1),
        }
    }
}

fn count_kind(kind: &Kind) -> Counter {
    counter!("ingest_events_total", "kind" => kind.token())
}

/// One line and three figures for each webhook. Never in them: headers, tokens, secrets, bodies.
fn account(meters: &Meters, webhook: &Webhook, began: Instant, outcome: &Result<Done, Refusal>) {
    let source = webhook.source.key.as_str();
    let (outcome_label, reason) = match outcome {
        Ok(Done::Challenge(_)) => ("challenge", "none"),
        Ok(Done::Stored(stored, _)) if stored.duplicate => ("duplicate", "none"),
        Ok(Done::Stored(..)) => ("stored", "none"),
        Err(refusal) if refusal.status().is_server_error() => ("unavailable", refusal.reason()),
        Err(refusal) => ("refused", refusal.reason()),
    };
    let elapsed = began.elapsed();
    if outcome_label == "stored" {
        webhook.source.stored().increment(1);
        meters.stored_within.record(elapsed);
    } else {
        source::count(source, outcome_label, reason).increment(1);
        histogram!("ingest_webhook_duration_seconds", "outcome" => outcome_label).record(elapsed);
    }
    let duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    let trace_id = || webhook.trace.trace_id_hex();
    match outcome {
        Ok(Done::Challenge(_)) => info!(source, trace_id = trace_id(), "challenge answered"),
        Ok(Done::Stored(stored, kind)) => {
            meters.count(kind);
            let (seq, duplicate, kind) = (stored.seq, stored.duplicate, kind.token());
            debug!(
                source,
                kind,
                seq,
                duplicate,
                duration_us,
                trace_id = trace_id(),
                "event stored"
            );
        }
        Err(refusal) if refusal.status().is_server_error() => {
            warn!(
                source,
                reason,
                duration_us,
                trace_id = trace_id(),
                "webhook not stored: {reason}"
            );
        }
        Err(_) => {
            info!(source, reason, duration_us, trace_id = trace_id(), "webhook refused: {reason}")
        }
    }
}

/// The end of a request that hit a bug: counted and answered so that monday.com tries again.
pub fn panicked(_cause: Box<dyn Any + Send + 'static>) -> Response {
    counter!("ingest_panics_total").increment(1);
    error!("a request panicked; the backtrace is on stderr");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}
