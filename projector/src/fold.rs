//! The fold: events of a lead → what is remembered of it → its row (spec.md §2). Pure: no I/O, no
//! clock. Order-insensitive: any permutation, duplication or batching of the same events gives the
//! same row, because everything remembered is a set, a last write by `(occurred_at, event_id)`, an
//! earliest or a latest.

mod history;
mod row;
#[cfg(test)]
mod tests;

use leadpulse_service::config::Board;

use crate::event::{Act, Field, LeadEvent, Lifecycle, Status};
use history::History;
pub use row::{LeadRow, State};

/// Raised when the same events under the same mapping give another row or another stored state: rows
/// of an older version must be rebuilt.
pub const VERSION: u32 = 1;

/// The order of two writes to one field: by time, then byte-wise by id (spec.md §1).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, minicbor::Encode, minicbor::Decode)]
pub struct Stamp {
    #[n(0)]
    pub at: i64,
    #[n(1)]
    pub event_id: String,
}

/// A field of which only the last write counts.
#[derive(Debug, Clone, PartialEq, minicbor::Encode, minicbor::Decode)]
struct Last<T> {
    #[n(0)]
    write: Option<(Stamp, T)>,
}

impl<T> Default for Last<T> {
    fn default() -> Self {
        Self { write: None }
    }
}

impl<T> Last<T> {
    fn set(&mut self, stamp: Stamp, value: T) {
        if self.write.as_ref().is_none_or(|(last, _)| *last < stamp) {
            self.write = Some((stamp, value));
        }
    }

    fn get(&self) -> Option<&T> {
        self.write.as_ref().map(|(_, value)| value)
    }
}

/// Messages remembered of one lead. A lead has some dozens.
const REMEMBERED: usize = 256;

/// All that must be remembered of a lead so that a late event changes it as if it had come in time.
///
/// The numbers of the fields are the stored format: never reuse one.
#[derive(Debug, Clone, Default, PartialEq, minicbor::Encode, minicbor::Decode)]
pub struct LeadState {
    #[n(0)]
    name: Last<String>,
    #[n(1)]
    group: Last<String>,
    /// Every write: `closed_won_at` is the start of a run, and a late write can split one.
    #[n(2)]
    statuses: History<Option<Status>>,
    #[n(3)]
    owners: History<Option<i64>>,
    /// Normalised decimal text.
    #[n(4)]
    amount: Last<Option<String>>,
    #[n(5)]
    industry: Last<Option<String>>,
    /// Days since 0001-01-01.
    #[n(6)]
    next_call: Last<Option<i32>>,
    #[n(7)]
    lifecycle: Last<Lifecycle>,
    #[n(8)]
    api_created_at: Option<i64>,
    #[n(9)]
    created_at: Option<i64>,
    #[n(10)]
    first_seen_at: Option<i64>,
    /// Touches that need no mapping: a next call was set, an update was written.
    #[n(11)]
    first_contact_at: Option<i64>,
    #[n(12)]
    last_activity_at: Option<i64>,
    #[n(13)]
    last_event_at: Option<i64>,
    #[n(14)]
    last_seq: u64,
    #[n(15)]
    trace_id: Option<[u8; 16]>,
    /// The messages that told of the lead, sorted, the latest of them at most: its timeline is read from
    /// the stream by them.
    #[n(16)]
    #[cbor(default)]
    seqs: Vec<u64>,
}

impl LeadState {
    /// Applies one event.
    pub fn apply(&mut self, event: &LeadEvent) {
        let at = event.occurred_at;
        match event.act {
            Act::Created => earliest(&mut self.created_at, at),
            Act::Snapshot { created_at: Some(created_at) } => {
                earliest(&mut self.api_created_at, created_at);
            }
            Act::Commented if event.human => earliest(&mut self.first_contact_at, at),
            Act::Snapshot { created_at: None } | Act::Commented | Act::Other => {}
        }
        earliest(&mut self.first_seen_at, at);
        latest(&mut self.last_event_at, at);
        if event.human {
            latest(&mut self.last_activity_at, at);
        }
        let touches = event.human && event.act != Act::Created;
        for write in &event.writes {
            let stamp = Stamp { at: write.at, event_id: event.event_id.clone() };
            self.write(stamp, &write.field, touches);
        }
        self.remember(event.seq);
        if event.seq > self.last_seq {
            self.last_seq = event.seq;
            self.trace_id = event.trace_id.map(uuid::Uuid::into_bytes);
        }
    }

    fn write(&mut self, stamp: Stamp, field: &Field, touches: bool) {
        match field {
            Field::Name(name) => self.name.set(stamp, name.clone()),
            Field::Group(group) => self.group.set(stamp, group.clone()),
            Field::Status(status) => self.statuses.insert(stamp, status.clone(), touches),
            Field::Owner(owner) => self.owners.insert(stamp, *owner, false),
            Field::Amount(amount) => {
                self.amount.set(stamp, amount.map(|amount| amount.to_string()));
            }
            Field::Industry(industry) => self.industry.set(stamp, industry.clone()),
            Field::NextCall(date) => {
                if touches && date.is_some() {
                    earliest(&mut self.first_contact_at, stamp.at);
                }
                let days = date.map(|date| chrono::Datelike::num_days_from_ce(&date));
                self.next_call.set(stamp, days);
            }
            Field::Lifecycle(lifecycle) => self.lifecycle.set(stamp, *lifecycle),
        }
    }

    /// Writes that are kept one by one: what makes a state grow with its lead's history.
    pub fn kept_writes(&self) -> usize {
        self.statuses.len() + self.owners.len()
    }

    /// The greatest of all that came, whatever the order in which they came.
    fn remember(&mut self, seq: u64) {
        if let Err(place) = self.seqs.binary_search(&seq) {
            self.seqs.insert(place, seq);
            if self.seqs.len() > REMEMBERED {
                self.seqs.remove(0);
            }
        }
    }

    /// The messages that told of the lead: the last 256 of them.
    pub fn seqs(&self) -> &[u64] {
        &self.seqs
    }

    /// Is it what this state would be if it had been stored by a version that did not remember messages
    /// yet, and gone on with since?
    pub fn is_successor_of(&self, stored: &Self) -> bool {
        let older = stored.seqs.len() < self.seqs.len() && self.seqs.ends_with(&stored.seqs);
        older
            && Self { seqs: Vec::new(), ..self.clone() }
                == Self { seqs: Vec::new(), ..stored.clone() }
    }

    /// There may be earlier messages than `seqs` has.
    pub fn forgets(&self) -> bool {
        self.seqs.len() >= REMEMBERED
    }

    /// The form in which the state is stored beside the row.
    pub fn encode(&self) -> Vec<u8> {
        // Encoding into a vector can't fail: its error type has no value.
        minicbor::to_vec(self).unwrap_or_default()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, minicbor::decode::Error> {
        minicbor::decode(bytes)
    }
}

/// All events of one lead, in any order: what is remembered of it, and its row. No event, no row.
pub fn fold_all<'e>(
    events: impl IntoIterator<Item = &'e LeadEvent>,
    board: &Board,
) -> Option<(LeadState, LeadRow)> {
    let mut state = LeadState::default();
    for event in events {
        state.apply(event);
    }
    let row = state.row(board)?;
    Some((state, row))
}

fn earliest(known: &mut Option<i64>, at: i64) {
    *known = Some(known.map_or(at, |known| known.min(at)));
}

fn latest(known: &mut Option<i64>, at: i64) {
    *known = Some(known.map_or(at, |known| known.max(at)));
}
