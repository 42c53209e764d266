//! The reader: one ordered consumer on the whole stream, an in-process hash of each lead over the
//! lanes. No acks and no filter: the position is in Postgres, and order is what a fold lives on.

pub mod lead;
pub mod range;

use std::time::Duration;

use async_nats::jetstream::{
    self, ErrorCode,
    consumer::{DeliverPolicy, pull},
    stream::{RawMessageErrorKind, Stream},
};
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use leadpulse_nats::{Envelope, envelope::VERSION, streams};
use leadpulse_service::trace::{TRACEPARENT, TraceContext};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use crate::{
    lane::{Delivery, LanesGone, Routes},
    store::StreamIdentity,
};

/// How long the server may take to answer a question about the stream.
const ANSWER: Duration = Duration::from_secs(3);
/// The reader looks this often whether the stream goes on without it.
const WATCH: Duration = Duration::from_secs(2);
/// Messages handed over in one go.
const CHUNK: usize = 512;

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the stream {} is not there yet; `ingest` creates it", streams::EVENTS)]
    NoStream,
    #[error(
        "the stream begins at {first} but the read models end at {applied}: events between them are gone; \
         restore the stream, or rebuild the projection from what is left"
    )]
    Trimmed { first: u64, applied: u64 },
    #[error(
        "the stream ends at {last} but the read models are from {applied}: it was purged or restored from \
         an older copy; restore the stream, or rebuild the projection"
    )]
    Behind { last: u64, applied: u64 },
    #[error("the stream was recreated while it was read")]
    Recreated,
    #[error("the consumer is silent at {read} while the stream is at {last}")]
    Silent { read: u64, last: u64 },
    #[error("the consumer left out {seq}, which the stream has")]
    LeftOut { seq: u64 },
    #[error("nats: {0}")]
    Nats(String),
}

impl ReadError {
    /// Does it need an operator? Everything else goes away by another try.
    pub fn is_fault(&self) -> bool {
        matches!(self, Self::Trimmed { .. } | Self::Behind { .. })
    }

    fn nats(error: impl std::fmt::Display) -> Self {
        Self::Nats(error.to_string())
    }
}

/// What the server says of the stream now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub identity: StreamIdentity,
    pub first: u64,
    pub last: u64,
}

impl Seen {
    /// A position outside the stream is a fault, never a skip.
    pub fn check(&self, applied: u64) -> Result<(), ReadError> {
        if self.last < applied {
            return Err(ReadError::Behind { last: self.last, applied });
        }
        if self.first > applied + 1 {
            return Err(ReadError::Trimmed { first: self.first, applied });
        }
        Ok(())
    }
}

/// The stream of record, or that it is not there yet.
pub async fn find(jetstream: &jetstream::Context) -> Result<Stream, ReadError> {
    use async_nats::jetstream::context::GetStreamErrorKind;
    match timeout(ANSWER, jetstream.get_stream(streams::EVENTS)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => match error.kind() {
            GetStreamErrorKind::JetStream(cause)
                if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Err(ReadError::NoStream)
            }
            _ => Err(ReadError::nats(error)),
        },
        Err(_) => Err(ReadError::nats("no answer in time")),
    }
}

/// Asks the server about the stream.
pub async fn look(stream: &Stream) -> Result<Seen, ReadError> {
    let info = timeout(ANSWER, stream.get_info())
        .await
        .map_err(|_| ReadError::nats("no answer in time"))?
        .map_err(ReadError::nats)?;
    let created = info.created.unix_timestamp_nanos() / 1000;
    let created_at = i64::try_from(created).ok().and_then(DateTime::<Utc>::from_timestamp_micros);
    let identity = StreamIdentity {
        name: info.config.name,
        created_at: created_at.ok_or_else(|| ReadError::nats("the stream has no creation time"))?,
    };
    Ok(Seen { identity, first: info.state.first_sequence, last: info.state.last_sequence })
}

/// When the first message came that is not applied; nothing if there is none, or the stream has lost it.
pub async fn waiting_since(stream: &Stream, seen: &Seen, applied: u64) -> Option<DateTime<Utc>> {
    if applied >= seen.last {
        return None;
    }
    let waiting = timeout(ANSWER, stream.get_raw_message(applied + 1)).await.ok()?.ok()?;
    let micros = i64::try_from(waiting.time.unix_timestamp_nanos() / 1000).ok()?;
    DateTime::from_timestamp_micros(micros)
}

/// Reads from after `applied` on and hands each message to its lane, until told to stop.
pub async fn read(
    stream: &Stream,
    identity: &StreamIdentity,
    applied: u64,
    routes: &Routes,
    stop: CancellationToken,
) -> Result<(), ReadError> {
    let config = pull::OrderedConfig {
        deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: applied + 1 },
        description: Some("leadpulse projector".to_owned()),
        ..Default::default()
    };
    let consumer = timeout(ANSWER, stream.create_consumer(config))
        .await
        .map_err(|_| ReadError::nats("no answer in time"))?
        .map_err(ReadError::nats)?;
    let messages = consumer.messages().await.map_err(ReadError::nats)?;
    let mut chunks = messages.ready_chunks(CHUNK);
    let mut watch = interval(WATCH);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut guard = Guard::default();
    let mut read = applied;
    let mut read_at_last_look = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            chunk = chunks.next() => {
                let chunk = chunk.ok_or_else(|| ReadError::nats("the consumer ended"))?;
                if lost!("reader-silent") {
                    continue;
                }
                for message in chunk {
                    let message = message.map_err(ReadError::nats)?;
                    guard.check(&message, stream, identity).await?;
                    let delivery = delivery(message)?;
                    if delivery.seq <= read {
                        continue;
                    }
                    if delivery.seq > read + 1 {
                        check_gap(stream, read).await?;
                        warn!(from_seq = read + 1, to_seq = delivery.seq, "the stream has a gap: messages were deleted");
                    }
                    read = delivery.seq;
                    if routes.deliver(delivery).await == Err(LanesGone) {
                        return Ok(());
                    }
                }
                if routes.advance(read).await == Err(LanesGone) {
                    return Ok(());
                }
            }
            _ = watch.tick() => {
                let seen = look(stream).await?;
                if seen.identity != *identity {
                    return Err(ReadError::Recreated);
                }
                seen.check(read)?;
                if seen.last > read && read_at_last_look == Some((read, true)) {
                    return Err(ReadError::Silent { read, last: seen.last });
                }
                read_at_last_look = Some((read, seen.last > read));
            }
        }
    }
}

/// What does not come after `read` must have been deleted message by message: then there is no more of it.
async fn check_gap(stream: &Stream, read: u64) -> Result<(), ReadError> {
    look(stream).await?.check(read)?;
    let seq = read + 1;
    let missing = timeout(ANSWER, stream.get_raw_message(seq))
        .await
        .map_err(|_| ReadError::nats("no answer in time"))?;
    match missing.map_err(|error| error.kind()) {
        Ok(_) => Err(ReadError::LeftOut { seq }),
        Err(RawMessageErrorKind::NoMessageFound) => Ok(()),
        Err(other) => Err(ReadError::nats(other)),
    }
}

/// The client's ordered consumer is made anew when the server loses it, also when the whole stream was
/// recreated behind its back: each new one must prove that it reads the same stream.
#[derive(Default)]
struct Guard {
    consumer: String,
}

impl Guard {
    async fn check(
        &mut self,
        message: &jetstream::Message,
        stream: &Stream,
        identity: &StreamIdentity,
    ) -> Result<(), ReadError> {
        let consumer = message.info().map_err(ReadError::nats)?.consumer;
        if self.consumer != consumer {
            if look(stream).await?.identity != *identity {
                return Err(ReadError::Recreated);
            }
            consumer.clone_into(&mut self.consumer);
        }
        Ok(())
    }
}

fn delivery(message: jetstream::Message) -> Result<Delivery, ReadError> {
    let seq = message.info().map_err(ReadError::nats)?.stream_sequence;
    let header = message.headers.as_ref().and_then(|headers| headers.get(TRACEPARENT));
    let trace = header.and_then(|header| TraceContext::parse(header.as_str()));
    let envelope = envelope_of(&message.payload);
    Ok(Delivery {
        seq,
        trace_id: trace.map(|trace| Uuid::from_u128(trace.trace_id)),
        payload: message.message.payload,
        envelope,
    })
}

/// The envelope of a message, or why it can't be read.
pub fn envelope_of(payload: &[u8]) -> Result<Envelope, String> {
    match serde_json::from_slice::<Envelope>(payload) {
        Ok(envelope) if envelope.v <= VERSION => Ok(envelope),
        Ok(envelope) => {
            Err(format!("envelope version {} is newer than this projector", envelope.v))
        }
        Err(error) => Err(format!("no envelope: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(first: u64, last: u64) -> Seen {
        let created_at = DateTime::<Utc>::UNIX_EPOCH;
        Seen { identity: StreamIdentity { name: "S".into(), created_at }, first, last }
    }

    #[test]
    fn a_position_outside_the_stream_is_a_fault_and_never_a_skip() {
        assert!(seen(1, 10).check(0).is_ok());
        assert!(seen(0, 0).check(0).is_ok(), "an empty stream");
        assert!(seen(5, 10).check(4).is_ok());
        assert!(matches!(seen(6, 10).check(4), Err(ReadError::Trimmed { first: 6, applied: 4 })));
        assert!(matches!(seen(1, 3).check(4), Err(ReadError::Behind { last: 3, applied: 4 })));
        assert!(seen(11, 10).check(10).is_ok(), "purged, but after everything was applied");
    }
}
