//! One finished answer, and its form in Redis.

use axum::http::HeaderValue;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use sha2::{Digest, Sha256};

/// Marks the form; another version of this program that writes another form takes another mark.
const MARK: &[u8; 4] = b"LP1\n";
const HEAD: usize = MARK.len() + 32 + 3 * 8;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) body: Bytes,
    pub(crate) etag: HeaderValue,
    /// Everything up to here is in the body.
    pub(crate) seq: i64,
    /// The time of the read: what the figures are of.
    pub(crate) at: DateTime<Utc>,
    pub(crate) fresh_until: DateTime<Utc>,
}

impl Entry {
    /// `org` goes into the tag: equal bytes of two orgs must not be told apart from outside.
    pub(crate) fn new(
        org: &str,
        body: Bytes,
        seq: i64,
        at: DateTime<Utc>,
        fresh_until: DateTime<Utc>,
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(org);
        hash.update([0]);
        hash.update(&body);
        let tag = format!("\"{}\"", hex::encode(&hash.finalize()[..16]));
        let etag = HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body, etag, seq, at, fresh_until }
    }

    pub(crate) fn serves(&self, min_seq: i64, now: DateTime<Utc>) -> bool {
        self.seq >= min_seq && now < self.fresh_until
    }

    pub(super) fn encode(&self, key: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + 64 + self.body.len());
        for number in [self.seq, self.at.timestamp_micros(), self.fresh_until.timestamp_micros()] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.etag.as_bytes());
        bytes.push(b'\n');
        bytes.extend(&self.body);
        [MARK.as_slice(), &checksum(key, &bytes), &bytes].concat()
    }

    /// None for what is not exactly what `encode` made under this key: Redis may hold anything.
    pub(super) fn decode(key: &str, bytes: Vec<u8>) -> Option<Self> {
        let bytes = Bytes::from(bytes);
        let (mark, rest) = bytes.split_at_checked(MARK.len())?;
        let (sum, rest) = rest.split_at_checked(32)?;
        if mark != MARK || sum != checksum(key, rest) {
            return None;
        }
        let (numbers, rest) = rest.split_at_checked(24)?;
        let [seq, at, fresh_until] = numbers
            .as_chunks::<8>()
            .0
            .try_into()
            .ok()
            .map(|chunks: [[u8; 8]; 3]| chunks.map(i64::from_be_bytes))?;
        let line = rest.iter().position(|byte| *byte == b'\n')?;
        Some(Self {
            etag: HeaderValue::from_bytes(rest.get(..line)?).ok()?,
            body: bytes.slice(HEAD + line + 1..),
            seq,
            at: instant::from_micros(at)?,
            fresh_until: instant::from_micros(fresh_until)?,
        })
    }
}

fn checksum(key: &str, bytes: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(key);
    hash.update([0]);
    hash.update(bytes);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_is_what_was_put_or_nothing() {
        let at = instant::from_micros(1_772_445_600_628_106).unwrap();
        let entry = Entry::new("demo", Bytes::from_static(b"{\"a\":1}"), 7, at, at);
        let bytes = entry.encode("key");
        let back = Entry::decode("key", bytes.clone()).unwrap();
        assert_eq!((&back.body, &back.etag, back.seq), (&entry.body, &entry.etag, 7));
        assert_eq!((back.at, back.fresh_until), (at, at));
        assert!(Entry::decode("another key", bytes.clone()).is_none());
        for place in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[place] ^= 1;
            assert!(Entry::decode("key", broken).is_none(), "{place}");
            assert!(Entry::decode("key", bytes[..place].to_vec()).is_none(), "{place}");
        }
    }

    #[test]
    fn equal_bodies_of_two_orgs_have_two_tags() {
        let at = instant::from_micros(0).unwrap();
        let tag = |org| Entry::new(org, Bytes::from_static(b"{}"), 0, at, at).etag;
        assert_ne!(tag("a"), tag("b"));
    }
}
