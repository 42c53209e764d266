//! One finished answer, and its form in Redis.

use std::{
    io::Write,
    sync::{OnceLock, atomic::AtomicU32},
};

use axum::http::HeaderValue;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flate2::{Compression, write::GzEncoder};
use leadpulse_nats::instant;
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use crate::value;

/// Marks the form; another version of this program that writes another form takes another mark.
const MARK: &[u8; 4] = b"LP3\n";
const NUMBERS: usize = 3 * 8;
const SUM: usize = 16;
const HEAD: usize = MARK.len() + SUM + NUMBERS + 1;
/// Shorter bodies gain nothing.
const WORTH_IT: usize = 1024;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) body: Bytes,
    /// There is no such thing in the org: that is an answer, too.
    pub(crate) missing: bool,
    /// Of the body as it is, and of the compressed one.
    pub(crate) etag: HeaderValue,
    pub(crate) gzip_etag: HeaderValue,
    /// Everything up to here is in the body.
    pub(crate) seq: i64,
    /// The time of the read: what the figures are of.
    pub(crate) at: DateTime<Utc>,
    /// The same as its header.
    pub(crate) as_of: HeaderValue,
    pub(crate) fresh_until: DateTime<Utc>,
    /// How often it was given out from memory.
    pub(super) asked: AtomicU32,
    /// Made when it is first asked for, and then kept.
    gzip: OnceLock<Bytes>,
}

impl Entry {
    /// `org` goes into the tag: equal bytes of two orgs must not be told apart from outside.
    pub(crate) fn new(
        org: &str,
        body: Option<Bytes>,
        seq: i64,
        at: DateTime<Utc>,
        fresh_until: DateTime<Utc>,
    ) -> Self {
        let missing = body.is_none();
        let body = body.unwrap_or_default();
        let mut hash = Sha256::new();
        hash.update(org);
        hash.update([0]);
        hash.update(&body);
        let tag = hex::encode(&hash.finalize()[..16]);
        Self::finished(body, missing, &tag, seq, at, fresh_until)
    }

    fn finished(
        body: Bytes,
        missing: bool,
        tag: &str,
        seq: i64,
        at: DateTime<Utc>,
        fresh_until: DateTime<Utc>,
    ) -> Self {
        let header =
            |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""));
        let quoted = |end: &str| header(format!("\"{tag}{end}\""));
        let (etag, gzip_etag) = (quoted(""), quoted("-gzip"));
        Self {
            body,
            missing,
            etag,
            gzip_etag,
            seq,
            at,
            as_of: header(value::instant(at)),
            fresh_until,
            asked: AtomicU32::new(0),
            gzip: OnceLock::new(),
        }
    }

    pub(crate) fn serves(&self, min_seq: i64, now: DateTime<Utc>) -> bool {
        self.seq >= min_seq && now < self.fresh_until
    }

    /// Is the body worth compressing?
    pub(crate) fn compressible(&self) -> bool {
        self.body.len() >= WORTH_IT
    }

    /// The compressed body. A body is compressed once, however often it is sent.
    pub(crate) fn gzip(&self) -> Bytes {
        let made = self.gzip.get_or_init(|| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            let written = encoder.write_all(&self.body).and_then(|()| encoder.finish());
            // Writing to memory does not fail.
            written.map(Bytes::from).unwrap_or_default()
        });
        made.clone()
    }

    /// Bytes in memory, the compressed ones included, made or not: figures and names shrink to a quarter.
    pub(super) fn weight(&self) -> usize {
        self.body.len() + if self.compressible() { self.body.len() / 4 } else { 0 } + 400
    }

    pub(super) fn encode(&self, key: &str) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEAD + 64 + self.body.len());
        for number in [self.seq, self.at.timestamp_micros(), self.fresh_until.timestamp_micros()] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.push(u8::from(self.missing));
        bytes.extend(self.etag.as_bytes());
        bytes.push(b'\n');
        bytes.extend(&self.body);
        [MARK.as_slice(), &checksum(key, &bytes), &bytes].concat()
    }

    /// None for what is not exactly what `encode` made under this key: Redis may hold anything.
    pub(super) fn decode(key: &str, bytes: Vec<u8>) -> Option<Self> {
        let bytes = Bytes::from(bytes);
        let (mark, rest) = bytes.split_at_checked(MARK.len())?;
        let (sum, rest) = rest.split_at_checked(SUM)?;
        if mark != MARK || sum != checksum(key, rest) {
            return None;
        }
        let (numbers, rest) = rest.split_at_checked(NUMBERS)?;
        let [seq, at, fresh_until] = numbers
            .as_chunks::<8>()
            .0
            .try_into()
            .ok()
            .map(|chunks: [[u8; 8]; 3]| chunks.map(i64::from_be_bytes))?;
        let (missing, rest) = rest.split_first()?;
        let line = rest.iter().position(|byte| *byte == b'\n')?;
        let tag = std::str::from_utf8(rest.get(..line)?).ok()?.trim_matches('"');
        let body = bytes.slice(HEAD + line + 1..);
        let (instant, until) = (instant::from_micros(at)?, instant::from_micros(fresh_until)?);
        Some(Self::finished(body, *missing == 1, tag, seq, instant, until))
    }
}

/// Against rubbish, not against who means harm: whoever can write into Redis can make a sum as well.
fn checksum(key: &str, bytes: &[u8]) -> [u8; SUM] {
    let mut hash = Xxh3::new();
    hash.update(key.as_bytes());
    hash.update(&[0]);
    hash.update(bytes);
    hash.digest128().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_comes_back_is_what_was_put_or_nothing() {
        let at = instant::from_micros(1_772_445_600_628_106).unwrap();
        for body in [Some(Bytes::from_static(b"{\"a\":1}")), None] {
            let entry = Entry::new("demo", body, 7, at, at);
            let bytes = entry.encode("key");
            let back = Entry::decode("key", bytes.clone()).unwrap();
            assert_eq!((&back.body, &back.etag, back.seq), (&entry.body, &entry.etag, 7));
            assert_eq!((&back.gzip_etag, back.missing), (&entry.gzip_etag, entry.missing));
            assert_eq!((back.at, back.fresh_until), (at, at));
            assert!(Entry::decode("another key", bytes.clone()).is_none());
            for place in 0..bytes.len() {
                let mut broken = bytes.clone();
                broken[place] ^= 1;
                assert!(Entry::decode("key", broken).is_none(), "{place}");
                assert!(Entry::decode("key", bytes[..place].to_vec()).is_none(), "{place}");
            }
        }
    }

    #[test]
    fn equal_bodies_of_two_orgs_have_two_tags_and_so_have_the_two_forms_of_one() {
        let at = instant::from_micros(0).unwrap();
        let entry = |org| Entry::new(org, Some(Bytes::from_static(b"{}")), 0, at, at);
        assert_ne!(entry("a").etag, entry("b").etag);
        assert_ne!(entry("a").etag, entry("a").gzip_etag);
    }

    #[test]
    fn the_compressed_body_is_the_body() {
        let at = instant::from_micros(0).unwrap();
        let body = Bytes::from("a lead ".repeat(1000));
        let entry = Entry::new("a", Some(body.clone()), 0, at, at);
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&*entry.gzip()).read_to_end(&mut back).unwrap();
        assert!(entry.compressible() && back == body && entry.gzip().len() * 10 < body.len());
    }
}
