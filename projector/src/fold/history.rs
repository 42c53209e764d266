//! Every write of one field, in the order in which they happened, whatever order they arrived in.

use super::Stamp;

#[derive(Debug, Clone, PartialEq, minicbor::Encode, minicbor::Decode)]
pub(super) struct Entry<T> {
    #[n(0)]
    pub(super) stamp: Stamp,
    #[n(1)]
    pub(super) value: T,
    /// The write was the act of a person, after the creation: it may be a touch.
    #[n(2)]
    pub(super) touches: bool,
}

#[derive(Debug, Clone, PartialEq, minicbor::Encode, minicbor::Decode)]
pub(super) struct History<T> {
    #[n(0)]
    entries: Vec<Entry<T>>,
}

impl<T> Default for History<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

impl<T> History<T> {
    /// Adds a write; one that is known already changes nothing.
    pub(super) fn insert(&mut self, stamp: Stamp, value: T, touches: bool) {
        if let Err(place) = self.entries.binary_search_by(|entry| entry.stamp.cmp(&stamp)) {
            self.entries.insert(place, Entry { stamp, value, touches });
        }
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry<T>> {
        self.entries.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn last(&self) -> Option<&T> {
        self.entries.last().map(|entry| &entry.value)
    }

    /// The start of the unbroken run of values in a class which lasts to the end of the history.
    pub(super) fn run_start(&self, in_class: impl Fn(&T) -> bool) -> Option<i64> {
        let run = self.entries.iter().rev().take_while(|entry| in_class(&entry.value));
        run.last().map(|entry| entry.stamp.at)
    }
}
