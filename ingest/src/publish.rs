//! A record into the stream, and the word of the stream that it has it.
//!
//! An acknowledgement that does not come says nothing: the record may be stored or lost. So it is sent
//! again under the same id, which makes a second copy harmless, and the first answer counts, whichever
//! attempt it belongs to. What has no answer at the deadline is a 503, and monday.com tries again.

mod batch;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
    time::Duration,
};

use anyhow::{Context, Result};
use async_nats::{
    HeaderMap, HeaderName,
    header::NATS_MESSAGE_ID,
    jetstream::{self, ErrorCode},
};
use leadpulse_service::{
    config,
    trace::{TRACEPARENT, TraceContext},
};
use metrics::{Counter, Gauge, counter, gauge};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::debug;

use crate::{answer::Refusal, event::Record, http::InFlight, stream::Broker};
use batch::{Answer, Batches, Outgoing};

const TRACE: HeaderName = HeaderName::from_static(TRACEPARENT);

/// How long an acknowledgement may take before the record is sent once more. A healthy broker needs
/// milliseconds, one that was just restarted has forgotten what it was asked.
const RESEND_AFTER: Duration = Duration::from_millis(1200);
/// And how long each further one: nobody answers, so the first who can is to be asked soon. The copies of
/// a stream elect a leader in 4 to 9 s; what comes on top of that is ours.
const RESEND_AGAIN_AFTER: Duration = Duration::from_millis(400);
/// After a refusal that may pass (a leader is elected, a stream is being restored).
const PAUSE: Duration = Duration::from_millis(100);

/// The stream has the event, from now or from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub seq: u64,
    pub duplicate: bool,
}

pub struct Publisher {
    broker: Broker,
    batches: Batches,
    permits: Semaphore,
    answer_within: Duration,
    in_flight: Gauge,
    resends: Counter,
}

/// What an answer that is no acknowledgement means.
enum Setback {
    /// Not now; the next attempt may do.
    TryAgain(&'static str),
    /// No attempt will do within the time that there is.
    Hopeless(Refusal),
}

impl Publisher {
    pub async fn new(broker: Broker, config: &config::Ingest) -> Result<Self> {
        let client = broker.client().clone();
        let batches = Batches::start(client, config.max_in_flight).await;
        Ok(Self {
            batches: batches.context("the NATS client can't listen for acknowledgements")?,
            broker,
            permits: Semaphore::new(config.max_in_flight),
            answer_within: config.answer_within,
            in_flight: gauge!("ingest_publishes_in_flight"),
            resends: counter!("ingest_publish_resends_total"),
        })
    }

    pub fn jetstream(&self) -> &jetstream::Context {
        self.broker.jetstream()
    }

    /// Publishes and waits for the acknowledgement, until the deadline at most.
    pub async fn publish(&self, record: &Record, trace: &TraceContext) -> Result<Stored, Refusal> {
        let deadline = Instant::now() + self.answer_within;
        let _permit = self.permits.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let _counted = InFlight::count(self.in_flight.clone());
        if !self.broker.takes_events() {
            let connected = timeout_at(deadline, self.broker.connected()).await;
            connected.map_err(|_| Refusal::NotStored("broker_away"))?;
        }
        self.publish_until(deadline, record, trace).await
    }

    async fn publish_until(
        &self,
        deadline: Instant,
        record: &Record,
        trace: &TraceContext,
    ) -> Result<Stored, Refusal> {
        let mut attempts = vec![self.attempt(record, trace)];
        let mut resend_at = Instant::now() + RESEND_AFTER;
        let mut reason = "broker_slow";
        loop {
            tokio::select! {
                biased;
                answer = first_of(&mut attempts) => match judge(answer) {
                    Ok(stored) => return Ok(stored),
                    Err(Setback::Hopeless(refusal)) => return Err(refusal),
                    Err(Setback::TryAgain(why)) => {
                        reason = why;
                        resend_at = Instant::now() + PAUSE;
                    }
                },
                () = sleep_until(resend_at.min(deadline)) => {
                    if Instant::now() >= deadline {
                        return Err(Refusal::NotStored(reason));
                    }
                    if self.broker.takes_events() {
                        self.resends.increment(1);
                        attempts.push(self.attempt(record, trace));
                        resend_at += RESEND_AGAIN_AFTER;
                    } else {
                        reason = "broker_away";
                        resend_at = Instant::now() + PAUSE;
                    }
                }
            }
        }
    }

    fn attempt(&self, record: &Record, trace: &TraceContext) -> oneshot::Receiver<Answer> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, record.message_id());
        headers.insert(TRACE, trace.to_string());
        let (subject, payload) = (record.subject().into(), record.payload().clone());
        self.batches.send(Outgoing { subject, headers, payload })
    }
}

/// The first answer to any attempt; that attempt is over then. Never, if there is none.
async fn first_of(attempts: &mut Vec<oneshot::Receiver<Answer>>) -> Answer {
    poll_fn(|context| {
        for (index, attempt) in attempts.iter_mut().enumerate() {
            if let Poll::Ready(answer) = Pin::new(attempt).poll(context) {
                attempts.swap_remove(index);
                return Poll::Ready(answer.unwrap_or(Answer::NotSent));
            }
        }
        Poll::Pending
    })
    .await
}

/// Which failures pass by themselves.
fn judge(answer: Answer) -> Result<Stored, Setback> {
    Err(match answer {
        Answer::Stored { seq, duplicate } => return Ok(Stored { seq, duplicate }),
        // What can't be a message is refused before; this is a server that takes less than it is asked to.
        Answer::TooLarge => Setback::Hopeless(Refusal::NotStored("server_max_payload")),
        // No stream listens, or its leader is not elected yet.
        Answer::NoStream => Setback::TryAgain("stream_away"),
        // What it holds, no projector reads.
        Answer::ForeignStream => Setback::Hopeless(Refusal::NotStored("foreign_stream")),
        Answer::NotSent => Setback::TryAgain("broker_slow"),
        Answer::Refused(error) => {
            debug!(%error, "the stream refused a record");
            match error.error_code() {
                ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM => {
                    Setback::Hopeless(Refusal::NotStored("stream_max_msg_size"))
                }
                // The stream or the disk is full: it stays so for longer than a request can wait.
                ErrorCode::STREAM_STORE_FAILED => {
                    Setback::Hopeless(Refusal::NotStored("stream_full"))
                }
                _ => Setback::TryAgain("stream_refused"),
            }
        }
    })
}

impl Broker {
    /// Waits for a connection.
    pub(crate) async fn connected(&self) {
        while !self.takes_events() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}
