//! The whole stream folded once more, in memory: what `rebuild` writes and what `verify` compares.
//!
//! Memory is bounded by a setting. A pass folds the leads of a range of buckets; when they outgrow the
//! budget the upper half of the range is dropped and left to a later pass, which reads the stream again.

use std::{collections::HashMap, ops::Range, time::Duration};

use async_nats::jetstream::stream::Stream;
use tokio::{sync::mpsc, time::sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    event::{self, LeadKey, Meaning, UserEvent},
    fold::LeadState,
    lane::{BUCKETS, Delivery, bucket, bucket_of},
    mapping::Mapping,
    reader::{
        ReadError,
        range::{Bounds, RangeReader, Select},
    },
    store::{LeftOut, Parked, Position, StreamIdentity},
};

/// Chunks between the reader and the fold.
const AHEAD: usize = 8;
/// What a lead costs in memory, and what each write that is kept one by one adds; measured with
/// `cargo xtask bench rebuild`, rounded up.
const LEAD_BYTES: usize = 1800;
const WRITE_BYTES: usize = 220;

/// What is folded, and how much of it at a time.
#[derive(Debug, Clone)]
pub struct Refold<'a> {
    pub stream: &'a Stream,
    pub identity: &'a StreamIdentity,
    pub from: u64,
    /// Where each lane ends: a lead's events count up to the position of its lane.
    pub position: Position,
    pub mapping: &'a Mapping,
    /// Events that no fold applies.
    pub left_out: &'a LeftOut,
    /// Only this org and board, where they are given.
    pub select: Select,
    /// Only the leads of these buckets.
    pub buckets: Range<u64>,
    pub memory: usize,
}

/// The leads of some buckets after all their events.
#[derive(Debug, Default)]
pub struct Pass {
    pub buckets: Range<u64>,
    pub leads: HashMap<LeadKey, LeadState>,
    /// The users and what is no envelope; each stands in the pass of its bucket.
    pub users: HashMap<(String, i64), (u64, UserEvent)>,
    pub unreadable: Vec<Parked>,
    /// Org and id of events that wait as letters of an earlier stream.
    pub returned: Vec<(String, String)>,
    /// What leads and letters take in memory, by estimate, and the most that they have taken.
    pub bytes: usize,
    pub peak_bytes: usize,
}

/// What the caller is told while a pass reads; it may slow the pass down.
pub trait Pace: Sync {
    /// The stream was folded up to here.
    fn at(&self, seq: u64);
    /// Others need the machine: rest this long before the next chunk.
    fn rest(&self) -> Duration;
}

#[derive(Debug, thiserror::Error)]
pub enum RefoldError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(
        "one of {BUCKETS} buckets of leads, or what nobody can read, needs more than {0} MiB: \
         raise projector.rebuild_memory_mib"
    )]
    Memory(usize),
}

impl Refold<'_> {
    /// Folds the leads from this bucket on, as many buckets as the memory holds.
    pub async fn pass(&self, from_bucket: u64, pace: &impl Pace) -> Result<Pass, RefoldError> {
        let to = self.position.farthest();
        let bounds = Bounds { from: self.from, to };
        let reader =
            RangeReader::open(self.stream, self.identity, bounds, self.select.clone()).await?;
        let (sender, mut chunks) = mpsc::channel(AHEAD);
        let reading = AbortOnDropHandle::new(tokio::spawn(read(reader, sender)));
        let mut pass = Pass { buckets: from_bucket..self.buckets.end, ..Pass::default() };
        while let Some(chunk) = chunks.recv().await {
            let last = chunk.last().map_or(0, |delivery| delivery.seq);
            for delivery in chunk {
                self.absorb(&mut pass, delivery)?;
            }
            pace.at(last);
            let rest = pace.rest();
            if !rest.is_zero() {
                sleep(rest).await;
            }
        }
        match reading.await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(ReadError::Nats("the reader panicked".into()).into()),
        }
        pace.at(to);
        Ok(pass)
    }

    fn absorb(&self, pass: &mut Pass, delivery: Delivery) -> Result<(), RefoldError> {
        let place = bucket_of(&delivery);
        let seq = delivery.seq;
        let counts = pass.buckets.contains(&place) && seq <= self.position.of_bucket(place);
        if !counts {
            return Ok(());
        }
        if let Ok(envelope) = &delivery.envelope
            && self.left_out.returns(&delivery.envelope)
        {
            pass.returned.push((envelope.org.clone(), envelope.event_id.clone()));
        }
        if self.left_out.contains(seq, &delivery.envelope) {
            return Ok(());
        }
        let envelope = match &delivery.envelope {
            Ok(envelope) => envelope,
            Err(reason) => {
                let reason = reason.clone();
                let letter = Parked::of(delivery, reason);
                pass.bytes += weight_of_letter(&letter);
                pass.unreadable.push(letter);
                return self.bound(pass);
            }
        };
        match event::decode(envelope, seq, delivery.trace_id, self.mapping) {
            Meaning::Lead(event) => {
                let state = pass.leads.get_mut(&event.key);
                if let Some(state) = state {
                    let before = state.kept_writes();
                    state.apply(&event);
                    pass.bytes += (state.kept_writes() - before) * WRITE_BYTES;
                } else {
                    let mut state = LeadState::default();
                    state.apply(&event);
                    pass.bytes += weight(&state);
                    pass.leads.insert(event.key, state);
                }
                self.bound(pass)
            }
            Meaning::User(user) => {
                pass.user(place, user);
                Ok(())
            }
            Meaning::Nothing(_) => Ok(()),
        }
    }

    /// Keeps the pass within its memory.
    fn bound(&self, pass: &mut Pass) -> Result<(), RefoldError> {
        pass.peak_bytes = pass.peak_bytes.max(pass.bytes);
        if pass.bytes > self.memory { self.shrink(pass) } else { Ok(()) }
    }

    /// Leaves the upper half of the buckets to a later pass.
    fn shrink(&self, pass: &mut Pass) -> Result<(), RefoldError> {
        while pass.bytes > self.memory {
            let Range { start, end } = pass.buckets;
            if end - start <= 1 {
                return Err(RefoldError::Memory(self.memory >> 20));
            }
            pass.buckets = start..start + (end - start) / 2;
            let kept = &pass.buckets;
            pass.leads.retain(|key, _| kept.contains(&bucket_of_lead(key)));
            // What nobody can read is in the bucket of lead 0.
            pass.unreadable.retain(|_| kept.contains(&0));
            pass.bytes = pass.leads.values().map(weight).sum::<usize>()
                + pass.unreadable.iter().map(weight_of_letter).sum::<usize>();
        }
        let kept = pass.buckets.clone();
        pass.users.retain(|_, (place, _)| kept.contains(place));
        Ok(())
    }
}

impl Pass {
    /// The last snapshot wins; of two with one time and id the one that came first, as in the tables.
    fn user(&mut self, place: u64, user: UserEvent) {
        let key = (user.org_id.clone(), user.user_id);
        let later = self.users.get(&key).is_none_or(|(_, known)| {
            (known.occurred_at, &known.event_id) < (user.occurred_at, &user.event_id)
        });
        if later {
            self.users.insert(key, (place, user));
        }
    }
}

pub fn bucket_of_lead(key: &LeadKey) -> u64 {
    bucket(&key.org_id, key.board_id, key.item_id)
}

/// What a lead takes in memory, by estimate.
pub(crate) fn weight(state: &LeadState) -> usize {
    LEAD_BYTES + state.kept_writes() * WRITE_BYTES
}

fn weight_of_letter(letter: &Parked) -> usize {
    size_of::<Parked>() + letter.payload.len() + letter.reason.len()
}

async fn read(
    mut reader: RangeReader,
    sender: mpsc::Sender<Vec<Delivery>>,
) -> Result<(), ReadError> {
    while let Some(chunk) = reader.next().await? {
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}
