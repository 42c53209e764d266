//! The stream out to files and in from files: archives, moves, a masked copy of production.
//!
//! A file is NDJSON, compressed with zstd: a head, one line for each message in the stream's order, and an
//! end that tells how many there must be. A file without its end is not whole, and is not imported.

mod export;
mod file;
mod import;
mod mask;

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use export::{Export, Exported, Part};
pub use file::{Checked, check};
pub(in crate::ops) use import::publish_again;
pub use import::{Imported, import};
pub use mask::{Mask, SHORTEST};

/// The version of the form.
const FORM: u8 = 1;
/// The source of masked messages, by which they are known wherever they are carried to; no source of a
/// configuration can have this name.
const MASKED: &str = "(masked)";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Head {
    pub leadpulse_export: u8,
    pub stream: String,
    pub from_seq: u64,
    pub to_seq: u64,
    pub masked: bool,
    pub exported_at: DateTime<Utc>,
}

/// One message.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    envelope: Option<Box<RawValue>>,
    /// The bytes of a message that is no envelope, or has line breaks, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
}

/// The last line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End {
    messages: u64,
    /// SHA-256 over all lines between head and end.
    sha256: String,
}

impl Head {
    fn parse(line: &str) -> Result<Self> {
        match serde_json::from_str::<Self>(line) {
            Ok(head) if head.leadpulse_export == FORM => Ok(head),
            Ok(head) => {
                bail!("the file is of form {}, this binary knows {FORM}", head.leadpulse_export)
            }
            Err(_) => bail!("the file does not begin as an export of `projector export` does"),
        }
    }
}
