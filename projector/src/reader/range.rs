//! A bounded read of the stream: from one sequence to another, of all events or of some, in order.
//! What operators' tools read the record with; the projection itself reads with [`super::read`].

use std::time::{Duration, SystemTime};

use async_nats::jetstream::{
    Message,
    consumer::{
        Consumer, DeliverPolicy,
        pull::{self, Ordered, OrderedConfig},
    },
    stream::Stream,
};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, stream::ReadyChunks};
use leadpulse_nats::Kind;
use tokio::time::{Instant, sleep, timeout};

use super::{ANSWER, CHUNK, Guard, ReadError, Seen, delivery, look};
use crate::{lane::Delivery, store::StreamIdentity};

/// A consumer that says nothing for this long is made anew where it stopped.
const SILENCE: Duration = Duration::from_secs(5);
/// Without a message for this long the read fails.
const GIVE_UP: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// One end of a range, as an operator names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    Seq(u64),
    /// When the stream stored the message, by the server's clock.
    Time(DateTime<Utc>),
}

/// Sequences, both included. Empty where `from` is after `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub from: u64,
    pub to: u64,
}

impl Bounds {
    /// What an operator asked for, within what the stream has: a time begins with the first message
    /// stored at or after it, and ends before it.
    pub async fn resolve(
        stream: &Stream,
        seen: &Seen,
        from: Option<Edge>,
        to: Option<Edge>,
    ) -> Result<Self, ReadError> {
        let from = match from {
            None => seen.first.max(1),
            Some(Edge::Seq(seq)) => seq.max(1),
            Some(Edge::Time(at)) => first_since(stream, seen, at).await?,
        };
        let to = match to {
            None => seen.last,
            Some(Edge::Seq(seq)) => seq.min(seen.last),
            Some(Edge::Time(at)) => first_since(stream, seen, at).await?.saturating_sub(1),
        };
        Ok(Self { from, to })
    }

    /// Sequences in the range: an upper bound of its messages.
    pub fn len(&self) -> u64 {
        (self.to + 1).saturating_sub(self.from)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which events of a range. What is not named is all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Select {
    pub org: Option<String>,
    pub board: Option<i64>,
    pub item: Option<i64>,
    pub kind: Option<Kind>,
}

impl Select {
    /// The server sends only what this matches: all that an event's subject can tell.
    fn subject(&self) -> Option<String> {
        if self.org.is_none() && self.board.is_none() && self.kind.is_none() {
            return None;
        }
        let org = self.org.as_deref().unwrap_or("*");
        let board = self.board.map_or_else(|| "*".to_owned(), |board| board.to_string());
        let kind = self.kind.as_ref().map_or("*", Kind::token);
        Some(format!("leadpulse.events.{org}.{board}.{kind}"))
    }

    /// A message that is no envelope belongs to no org: only a read of everything has it.
    pub fn takes(&self, delivery: &Delivery) -> bool {
        let Ok(envelope) = &delivery.envelope else { return *self == Self::default() };
        self.org.as_ref().is_none_or(|org| *org == envelope.org)
            && self.board.is_none_or(|board| envelope.board_id == Some(board))
            && self.item.is_none_or(|item| envelope.item_id == Some(item))
            && self.kind.as_ref().is_none_or(|kind| *kind == envelope.kind)
    }
}

/// Reads a range once, chunk by chunk. Nothing is read ahead of the caller but what the client holds.
pub struct RangeReader {
    stream: Stream,
    identity: StreamIdentity,
    select: Select,
    bounds: Bounds,
    read: u64,
    chunks: Option<ReadyChunks<Ordered>>,
    guard: Guard,
    done: bool,
}

impl RangeReader {
    /// Begins a read of a stream that must be the one of `identity` and must have the whole range.
    pub async fn open(
        stream: &Stream,
        identity: &StreamIdentity,
        bounds: Bounds,
        select: Select,
    ) -> Result<Self, ReadError> {
        let seen = look(stream).await?;
        if seen.identity != *identity {
            return Err(ReadError::Recreated);
        }
        let before = bounds.from.saturating_sub(1);
        if !bounds.is_empty() {
            seen.check(before)?;
            seen.check_end(bounds.to)?;
        }
        Ok(Self {
            stream: stream.clone(),
            identity: identity.clone(),
            select,
            bounds,
            read: before,
            chunks: None,
            guard: Guard::default(),
            done: bounds.is_empty(),
        })
    }

    /// Everything up to here was given out.
    pub fn read(&self) -> u64 {
        self.read
    }

    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The next events that were selected, in order; none at the end of the range. A consumer that is
    /// lost is made anew where it stopped; what can't be mended ends the read.
    pub async fn next(&mut self) -> Result<Option<Vec<Delivery>>, ReadError> {
        let mut quiet_since = Instant::now();
        while !self.done {
            let before = self.read;
            match self.step().await {
                Ok(chunk) if !chunk.is_empty() => return Ok(Some(chunk)),
                Ok(_) if self.read > before => quiet_since = Instant::now(),
                Ok(_) => {}
                Err(error) if error.is_final() || quiet_since.elapsed() > GIVE_UP => {
                    return Err(error);
                }
                Err(_) => {
                    self.chunks = None;
                    sleep(PAUSE).await;
                }
            }
        }
        Ok(None)
    }

    async fn step(&mut self) -> Result<Vec<Delivery>, ReadError> {
        let mut chunks = match self.chunks.take() {
            Some(chunks) => chunks,
            None => match self.consume().await? {
                Some(messages) => messages.ready_chunks(CHUNK),
                None => return Ok(self.end()),
            },
        };
        let messages = match timeout(SILENCE, chunks.next()).await {
            Ok(Some(messages)) => messages,
            Ok(None) => return Err(ReadError::nats("the consumer ended")),
            Err(_) => {
                return Err(ReadError::Silent { read: self.read, last: self.bounds.to });
            }
        };
        let mut taken = Vec::with_capacity(messages.len());
        for message in messages {
            match self.take(message.map_err(ReadError::nats), &mut taken).await {
                Ok(false) => {}
                Ok(true) => {
                    self.end();
                    return Ok(taken);
                }
                // What came before the error counts as read and is given out: the next step begins after it.
                Err(_) if !taken.is_empty() => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
        self.chunks = Some(chunks);
        Ok(taken)
    }

    /// Takes a message that was selected; says whether the range ends with it.
    async fn take(
        &mut self,
        message: Result<Message, ReadError>,
        taken: &mut Vec<Delivery>,
    ) -> Result<bool, ReadError> {
        fail::fail_point!("range-message", |_| Err(ReadError::nats("lost")));
        let message = message?;
        self.guard.check(&message, &self.stream, &self.identity).await?;
        let pending = message.info().map_err(ReadError::nats)?.pending;
        let delivery = delivery(message)?;
        if delivery.seq > self.bounds.to {
            return Ok(true);
        }
        if delivery.seq > self.read {
            self.read = delivery.seq;
            if self.select.takes(&delivery) {
                taken.push(delivery);
            }
        }
        Ok(self.read == self.bounds.to || pending == 0)
    }

    fn end(&mut self) -> Vec<Delivery> {
        self.read = self.bounds.to;
        self.done = true;
        Vec::new()
    }

    /// A consumer from where this read stands; none if nothing that was selected is left.
    async fn consume(&mut self) -> Result<Option<Ordered>, ReadError> {
        let start = DeliverPolicy::ByStartSequence { start_sequence: self.read + 1 };
        let consumer = consumer(&self.stream, start, self.select.subject()).await?;
        if look(&self.stream).await?.identity != self.identity {
            return Err(ReadError::Recreated);
        }
        if consumer.cached_info().num_pending == 0 {
            return Ok(None);
        }
        Ok(Some(messages(consumer).await?))
    }
}

impl Seen {
    /// Does the stream still have this sequence?
    fn check_end(&self, to: u64) -> Result<(), ReadError> {
        if to > self.last {
            Err(ReadError::Behind { last: self.last, applied: to })
        } else {
            Ok(())
        }
    }
}

impl ReadError {
    /// Another try can't mend it.
    fn is_final(&self) -> bool {
        self.is_fault() || matches!(self, Self::Recreated | Self::NoStream)
    }
}

/// The first sequence stored at or after an instant; one after the last where there is none yet.
async fn first_since(stream: &Stream, seen: &Seen, at: DateTime<Utc>) -> Result<u64, ReadError> {
    let start_time = SystemTime::from(at).into();
    let consumer = consumer(stream, DeliverPolicy::ByStartTime { start_time }, None).await?;
    if consumer.cached_info().num_pending == 0 {
        return Ok(seen.last + 1);
    }
    let first = timeout(SILENCE, messages(consumer).await?.next()).await;
    let message = first
        .map_err(|_| ReadError::nats("no answer in time"))?
        .ok_or_else(|| ReadError::nats("the consumer ended"))?
        .map_err(ReadError::nats)?;
    Ok(message.info().map_err(ReadError::nats)?.stream_sequence)
}

async fn consumer(
    stream: &Stream,
    deliver_policy: DeliverPolicy,
    subject: Option<String>,
) -> Result<Consumer<OrderedConfig>, ReadError> {
    let config = pull::OrderedConfig {
        deliver_policy,
        filter_subject: subject.unwrap_or_default(),
        description: Some("leadpulse operator".to_owned()),
        ..Default::default()
    };
    timeout(ANSWER, stream.create_consumer(config))
        .await
        .map_err(|_| ReadError::nats("no answer in time"))?
        .map_err(ReadError::nats)
}

async fn messages(consumer: Consumer<OrderedConfig>) -> Result<Ordered, ReadError> {
    timeout(ANSWER, consumer.messages())
        .await
        .map_err(|_| ReadError::nats("no answer in time"))?
        .map_err(ReadError::nats)
}
