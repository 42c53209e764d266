//! W3C trace context, as far as a webhook's way needs it: one trace id from the request to the row.

use std::fmt;

/// The header's name, in HTTP and in NATS.
pub const TRACEPARENT: &str = "traceparent";

/// A `traceparent`: `00-{trace id}-{parent id}-{flags}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    pub parent_id: u64,
    pub sampled: bool,
}

impl TraceContext {
    /// The context of an incoming header, with a span of our own in it; a new trace where there is none.
    pub fn continue_or_start(header: Option<&str>) -> Self {
        let parent_id = rand::random::<u64>().max(1);
        match header.and_then(Self::parse) {
            Some(incoming) => Self { parent_id, ..incoming },
            None => Self { trace_id: rand::random::<u128>().max(1), parent_id, sampled: true },
        }
    }

    pub fn parse(header: &str) -> Option<Self> {
        let mut parts = header.trim().split('-');
        let (version, trace, parent, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |text: &str, digits: usize| {
            text.len() == digits
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        // A later version may append fields; version 00 has exactly four.
        let known = version != "ff" && (version != "00" || parts.next().is_none());
        let shaped = lower_hex(version, 2)
            && lower_hex(trace, 32)
            && lower_hex(parent, 16)
            && lower_hex(flags, 2);
        if !known || !shaped {
            return None;
        }
        let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let parent_id = u64::from_str_radix(parent, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace_id, parent_id, sampled })
    }

    /// The trace id as it stands in logs: 32 hex digits.
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 48];
        let (trace, parent) = digits.split_at_mut(32);
        // The two places are of the right length; the error can't occur.
        hex::encode_to_slice(self.trace_id.to_be_bytes(), trace).map_err(|_| fmt::Error)?;
        hex::encode_to_slice(self.parent_id.to_be_bytes(), parent).map_err(|_| fmt::Error)?;
        let text = |digits| str::from_utf8(digits).map_err(|_| fmt::Error);
        f.write_str("00-")?;
        f.write_str(text(trace)?)?;
        f.write_str("-")?;
        f.write_str(text(parent)?)?;
        f.write_str(if self.sampled { "-01" } else { "-00" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_way_and_keeps_its_trace() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(TraceContext::parse(header).unwrap().to_string(), header);
        let ours = TraceContext::continue_or_start(Some(header));
        assert_eq!(ours.trace_id_hex(), "0af7651916cd43dd8448eb211c80319c");
        assert_ne!(ours.parent_id, 0xb7ad_6b71_6920_3331);
    }

    #[test]
    fn what_is_no_trace_starts_a_new_one() {
        for header in [
            "",
            "00-0-0-0",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ] {
            assert_eq!(TraceContext::parse(header), None, "{header}");
        }
        assert_ne!(TraceContext::continue_or_start(None).trace_id, 0);
    }
}
