//! Records go to the broker in batches: one task hands over what has gathered since it last ran, so that
//! one write to the socket, one read in the broker and one write of its answers serve many webhooks.
//! Nothing waits for a batch to fill; under little load a batch is one record.

use std::collections::HashMap;

use async_nats::{
    Client, HeaderMap, Message, StatusCode, Subject, Subscriber, connection::State, jetstream,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::ReadyChunks};
use leadpulse_nats::streams::EVENTS;
use serde::Deserialize;
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};
use tracing::warn;

/// Records of one batch at most. A larger one would only make the first of them wait.
const BATCH: usize = 512;

/// A record on its way to the stream.
pub(super) struct Outgoing {
    pub subject: Subject,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// What the broker says to one record, or what became of it before.
#[derive(Debug)]
pub(super) enum Answer {
    Stored {
        seq: u64,
        duplicate: bool,
    },
    /// The stream's own refusal.
    Refused(jetstream::Error),
    /// Nobody listens on the subject.
    NoStream,
    /// A stream that is not the one of record has taken it.
    ForeignStream,
    /// The broker takes no message of this size.
    TooLarge,
    /// It was not sent.
    NotSent,
}

type Waiting = oneshot::Sender<Answer>;

/// The way to the one task.
#[derive(Clone)]
pub(super) struct Batches {
    queue: mpsc::Sender<(Outgoing, Waiting)>,
}

impl Batches {
    /// At most `capacity` records wait for their turn.
    pub(super) async fn start(
        client: Client,
        capacity: usize,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let answers = client.subscribe(format!("{inbox}.*")).await?.ready_chunks(BATCH);
        let (queue, records) = mpsc::channel(capacity);
        let task = Task { client, inbox, next: 0, waiting: HashMap::new(), many: BATCH };
        tokio::spawn(task.run(records, answers));
        Ok(Self { queue })
    }

    /// The answer never comes if the broker does not give it: who waits has a deadline.
    pub(super) fn send(&self, record: Outgoing) -> oneshot::Receiver<Answer> {
        let (waiting, answer) = oneshot::channel();
        // A full queue drops the sender, which is an answer of its own.
        let _ = self.queue.try_send((record, waiting));
        answer
    }
}

struct Task {
    client: Client,
    inbox: String,
    /// The token of the next record: the last part of the subject of its answer.
    next: u64,
    waiting: HashMap<u64, Waiting>,
    /// Beyond this many, those who went away are looked for.
    many: usize,
}

impl Task {
    async fn run(
        mut self,
        mut records: mpsc::Receiver<(Outgoing, Waiting)>,
        mut answers: ReadyChunks<Subscriber>,
    ) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                arrived = answers.next() => match arrived {
                    Some(messages) => messages.iter().for_each(|message| self.answered(message)),
                    None => return,
                },
                count = records.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        return;
                    }
                    // Webhooks that were read in the same turn of the runtime come along.
                    yield_now().await;
                    while batch.len() < BATCH && let Ok(record) = records.try_recv() {
                        batch.push(record);
                    }
                    self.forget_who_went_away();
                    self.publish(&mut batch).await;
                }
            }
        }
    }

    async fn publish(&mut self, batch: &mut Vec<(Outgoing, Waiting)>) {
        // A client without a connection would keep the records and send them hours later.
        let connected = self.client.connection_state() == State::Connected;
        for (record, waiting) in batch.drain(..) {
            if waiting.is_closed() {
                continue;
            }
            let answer = match connected {
                true => self.hand_over(record).await,
                false => Err(Answer::NotSent),
            };
            match answer {
                Ok(token) => _ = self.waiting.insert(token, waiting),
                Err(answer) => _ = waiting.send(answer),
            }
        }
    }

    async fn hand_over(&mut self, record: Outgoing) -> Result<u64, Answer> {
        let Outgoing { subject, headers, payload } = record;
        let token = self.next;
        self.next += 1;
        let reply = [self.inbox.as_str(), itoa::Buffer::new().format(token)].join(".");
        let sent =
            self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await;
        sent.map(|()| token).map_err(|error| match error.kind() {
            async_nats::PublishErrorKind::MaxPayloadExceeded => Answer::TooLarge,
            _ => Answer::NotSent,
        })
    }

    fn answered(&mut self, message: &Message) {
        let token = message.subject.rsplit('.').next().and_then(|token| token.parse().ok());
        let waiting = token.and_then(|token: u64| self.waiting.remove(&token));
        match (waiting, read(message)) {
            (Some(waiting), Some(answer)) => _ = waiting.send(answer),
            // Who asked has its answer from another attempt, or has given up.
            (None, Some(_)) => {}
            (_, None) => warn!("an acknowledgement of the broker can't be read"),
        }
    }

    /// Requests that gave up leave their place. The table doubles between two looks at all of it.
    fn forget_who_went_away(&mut self) {
        if self.waiting.len() > self.many {
            self.waiting.retain(|_, waiting| !waiting.is_closed());
            self.many = 2 * self.waiting.len() + BATCH;
        }
    }
}

/// `{"stream":…,"seq":…,"duplicate":…}` or `{"error":{…}}`.
#[derive(Deserialize)]
struct Acknowledgement<'m> {
    error: Option<jetstream::Error>,
    stream: Option<&'m str>,
    seq: Option<u64>,
    #[serde(default)]
    duplicate: bool,
}

fn read(message: &Message) -> Option<Answer> {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        return Some(Answer::NoStream);
    }
    match serde_json::from_slice(&message.payload).ok()? {
        Acknowledgement { error: Some(error), .. } => Some(Answer::Refused(error)),
        Acknowledgement { stream: Some(EVENTS), seq: Some(seq), duplicate, .. } => {
            Some(Answer::Stored { seq, duplicate })
        }
        Acknowledgement { stream: Some(_), seq: Some(_), .. } => Some(Answer::ForeignStream),
        Acknowledgement { .. } => None,
    }
}
