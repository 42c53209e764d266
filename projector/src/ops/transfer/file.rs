//! A file of an export, read line by line and held to what its end tells.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{End, Head, Line};

/// Bytes of a line: twice the largest message, which may stand in it in base64. A file without line breaks
/// must not be read into memory whole.
const LONGEST: u64 = 4 << 20;
/// zstd's first bytes.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// A file, read line by line.
pub(super) struct Lines {
    text: Text,
    head: Head,
    digest: Sha256,
    messages: u64,
}

impl Lines {
    pub(super) fn open(file: impl Read + Send + 'static) -> Result<Self> {
        let mut plain = BufReader::new(file);
        let packed = plain.fill_buf()?.starts_with(&MAGIC);
        let reader: Box<dyn BufRead + Send> = if packed {
            Box::new(BufReader::new(zstd::Decoder::with_buffer(plain)?))
        } else {
            Box::new(plain)
        };
        let mut text = Text { reader, line: 0 };
        let first = text.next()?.context("the file is empty")?;
        Ok(Self { text, head: Head::parse(&first)?, digest: Sha256::new(), messages: 0 })
    }

    /// The next message; none at the end, which must be there and fit.
    pub(super) fn next(&mut self) -> Result<Option<Line>> {
        let Some(text) = self.text.next()? else {
            bail!("the file is not whole: it breaks off after {} messages", self.messages);
        };
        if let Ok(end) = serde_json::from_str::<End>(&text) {
            let sha256 = hex::encode(std::mem::take(&mut self.digest).finalize());
            let found = End { messages: self.messages, sha256 };
            ensure!(
                found == end,
                "the file was changed: its lines are not those that its end tells of"
            );
            return Ok(None);
        }
        let line = serde_json::from_str(&text)
            .with_context(|| format!("the file is broken in line {}", self.text.line))?;
        self.digest.update(text.as_bytes());
        self.digest.update(b"\n");
        self.messages += 1;
        Ok(Some(line))
    }
}

/// Lines of a bounded length, counted.
struct Text {
    reader: Box<dyn BufRead + Send>,
    line: u64,
}

impl Text {
    fn next(&mut self) -> Result<Option<String>> {
        self.line += 1;
        let line = self.line;
        let mut text = Vec::new();
        let read = (&mut self.reader).take(LONGEST + 1).read_until(b'\n', &mut text);
        if read.with_context(|| format!("the file can't be read in line {line}"))? == 0 {
            return Ok(None);
        }
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        ensure!(
            text.len() as u64 <= LONGEST,
            "line {line} of the file is longer than {} MiB, and no message is: the file was damaged or is \
             none of `projector export`; export it again",
            LONGEST >> 20
        );
        let text = String::from_utf8(text);
        Ok(Some(text.with_context(|| format!("line {line} of the file is no text"))?))
    }
}

/// A file that is whole.
#[derive(Debug, Clone)]
pub struct Checked {
    pub head: Head,
    pub messages: u64,
    pub(super) orgs: BTreeSet<String>,
    pub(super) mixing: bool,
}

impl Checked {
    /// A masked file may stand beside the unmasked events of its orgs.
    #[must_use]
    pub fn allow_mixing(self, mixing: bool) -> Self {
        Self { mixing, ..self }
    }
}

/// Reads a file to its end.
pub fn check(file: impl Read + Send + 'static) -> Result<Checked> {
    /// The part of an envelope that says whose it is.
    #[derive(Deserialize)]
    struct Owned {
        org: String,
    }
    let mut lines = Lines::open(file)?;
    let mut orgs = BTreeSet::new();
    while let Some(line) = lines.next()? {
        let envelope = line.envelope.and_then(|raw| serde_json::from_str::<Owned>(raw.get()).ok());
        if let Some(Owned { org }) = envelope
            && !orgs.contains(&org)
        {
            orgs.insert(org);
        }
    }
    Ok(Checked { head: lines.head, messages: lines.messages, orgs, mixing: false })
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, repeat};

    use super::*;

    const HEAD: &str = r#"{"leadpulse_export":1,"stream":"S","from_seq":1,"to_seq":1,"masked":false,"exported_at":"2026-01-01T00:00:00Z"}"#;

    #[test]
    fn a_line_without_an_end_is_refused_with_its_number_before_it_fills_the_memory() {
        let endless = || repeat(b'x').take(1 << 40);
        let said = check(endless()).unwrap_err().to_string();
        assert!(said.starts_with("line 1 of the file is longer than 4 MiB"), "{said}");
        let head = format!("{HEAD}\n{{\"seq\":1,\"raw\":\"\"}}\n");
        let said = check(Cursor::new(head).chain(endless())).unwrap_err().to_string();
        assert!(
            said.starts_with("line 3 of the file") && said.ends_with("export it again"),
            "{said}"
        );
    }

    #[test]
    fn a_line_that_is_no_message_is_named_by_its_number() {
        let said = |rest: &[u8]| {
            let file = Cursor::new([HEAD.as_bytes(), b"\n", rest].concat());
            check(file).unwrap_err().to_string()
        };
        assert_eq!(said(b"{\"seq\":1}\nrubbish\n"), "the file is broken in line 3");
        assert_eq!(said(b"\xff\n"), "line 2 of the file is no text");
    }
}
