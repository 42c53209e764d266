//! A record into the stream, and the word of the stream that it has it.
//!
//! An acknowledgement that does not come says nothing: the record may be stored or lost. So it is sent
//! again under the same id, which makes a second copy harmless, and the first answer counts, whichever
//! attempt it belongs to. What has no answer at the deadline is a 503, and monday.com tries again.

use std::{sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{self, context::PublishErrorKind, publish::PublishAck},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use leadpulse_nats::envelope::MESSAGE_ID;
use leadpulse_service::{
    config,
    trace::{TRACEPARENT, TraceContext},
};
use metrics::{counter, gauge};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tracing::debug;

use crate::{answer::Refusal, event::Record, http::InFlight, stream::Broker};

/// How long an acknowledgement may take before the record is sent once more. A healthy broker needs
/// milliseconds, one that was just restarted has forgotten what it was asked.
const RESEND_AFTER: Duration = Duration::from_millis(1200);
/// After a refusal that may pass (a leader is elected, a stream is being restored).
const PAUSE: Duration = Duration::from_millis(100);

/// The stream has the event, from now or from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub seq: u64,
    pub duplicate: bool,
}

#[derive(Clone)]
pub struct Publisher {
    broker: Broker,
    permits: Arc<Semaphore>,
    answer_within: Duration,
}

/// What one attempt came to.
enum Attempt {
    Acknowledged(PublishAck),
    /// Not now; the next attempt may do.
    TryAgain(&'static str),
    /// No attempt will do within the time that there is.
    Hopeless(Refusal),
}

impl Publisher {
    pub fn new(broker: Broker, config: &config::Ingest) -> Self {
        Self {
            broker,
            permits: Arc::new(Semaphore::new(config.max_in_flight)),
            answer_within: config.answer_within,
        }
    }

    pub fn jetstream(&self) -> &jetstream::Context {
        self.broker.jetstream()
    }

    /// Publishes and waits for the acknowledgement, until the deadline at most.
    pub async fn publish(&self, record: &Record, trace: &TraceContext) -> Result<Stored, Refusal> {
        let deadline = Instant::now() + self.answer_within;
        let _permit = self.permits.try_acquire().map_err(|_| Refusal::Overloaded)?;
        let _counted = InFlight::count(gauge!("ingest_publishes_in_flight"));
        self.publish_until(deadline, record, trace).await
    }

    async fn publish_until(
        &self,
        deadline: Instant,
        record: &Record,
        trace: &TraceContext,
    ) -> Result<Stored, Refusal> {
        // Nothing is handed to a client without a connection: it would keep it and send it hours later.
        if timeout_at(deadline, self.broker.connected()).await.is_err() {
            return Err(Refusal::NotStored("broker_away"));
        }
        let mut attempts = FuturesUnordered::new();
        attempts.push(self.attempt(record, trace));
        let mut resend_at = Instant::now() + RESEND_AFTER;
        let mut reason = "broker_slow";
        loop {
            tokio::select! {
                biased;
                Some(attempt) = attempts.next() => match attempt {
                    Attempt::Acknowledged(ack) => {
                        return Ok(Stored { seq: ack.sequence, duplicate: ack.duplicate });
                    }
                    Attempt::Hopeless(refusal) => return Err(refusal),
                    Attempt::TryAgain(why) => {
                        reason = why;
                        resend_at = Instant::now() + PAUSE;
                    }
                },
                () = sleep_until(deadline) => return Err(Refusal::NotStored(reason)),
                () = sleep_until(resend_at) => {
                    resend_at += RESEND_AFTER;
                    if self.broker.takes_events() {
                        counter!("ingest_publish_resends_total").increment(1);
                        attempts.push(self.attempt(record, trace));
                    } else {
                        reason = "broker_away";
                        resend_at = Instant::now() + PAUSE;
                    }
                }
            }
        }
    }

    async fn attempt(&self, record: &Record, trace: &TraceContext) -> Attempt {
        let mut headers = HeaderMap::new();
        headers.insert(MESSAGE_ID, record.message_id());
        headers.insert(TRACEPARENT, trace.to_string());
        let (subject, payload) = (record.subject().to_owned(), record.payload().clone());
        let jetstream = self.broker.jetstream();
        let sent = jetstream.publish_with_headers(subject, headers, payload).await;
        let acknowledged = match sent {
            Ok(acknowledgement) => acknowledgement.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(ack) => Attempt::Acknowledged(ack),
            Err(error) => {
                debug!(%error, "a publish was not acknowledged");
                judge(&error)
            }
        }
    }
}

/// Which failures pass by themselves.
fn judge(error: &jetstream::context::PublishError) -> Attempt {
    match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => Attempt::Hopeless(Refusal::BodyTooLarge),
        // No stream listens, or its leader is not elected yet.
        PublishErrorKind::StreamNotFound => Attempt::TryAgain("stream_away"),
        PublishErrorKind::MaxAckPending => Attempt::Hopeless(Refusal::Overloaded),
        PublishErrorKind::Other => judge_answer(error),
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe => {
            Attempt::TryAgain("broker_slow")
        }
        PublishErrorKind::WrongLastMessageId | PublishErrorKind::WrongLastSequence => {
            Attempt::TryAgain("stream_refused")
        }
    }
}

/// The stream has answered, but not with an acknowledgement.
fn judge_answer(error: &jetstream::context::PublishError) -> Attempt {
    /// `JSStreamStoreFailedF` and `JSStreamMessageExceedsMaximumErr` (nats-server's errors.json).
    const STORE_FAILED: u64 = 10077;
    const MESSAGE_TOO_LARGE: u64 = 10054;
    let answer = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>());
    match answer.map(|answer| answer.error_code().0) {
        Some(MESSAGE_TOO_LARGE) => Attempt::Hopeless(Refusal::BodyTooLarge),
        // The stream or the disk is full: it stays so for longer than a request can wait.
        Some(STORE_FAILED) => Attempt::Hopeless(Refusal::NotStored("stream_full")),
        _ => Attempt::TryAgain("stream_refused"),
    }
}

impl Broker {
    /// Waits for a connection.
    pub(crate) async fn connected(&self) {
        while !self.takes_events() {
            sleep(Duration::from_millis(20)).await;
        }
    }
}
