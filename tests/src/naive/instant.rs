//! Instants as whole microseconds of UTC; what is finer is cut off.

use chrono::{DateTime, SecondsFormat};

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

pub(super) const SECOND: Micros = 1_000_000;
pub(super) const MINUTE: Micros = 60 * SECOND;
pub(super) const HOUR: Micros = 60 * MINUTE;
pub(super) const DAY: Micros = 24 * HOUR;

/// ISO 8601, or the spelling of `subtasks` columns: `2025-02-04 19:20:54 +0000`.
pub(super) fn parse_date_time(text: &str) -> Option<Micros> {
    let iso = DateTime::parse_from_rfc3339(text).ok();
    let spaced = || DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S %z").ok();
    Some(iso.or_else(spaced)?.timestamp_micros())
}

/// Unix seconds with any number of decimals, from their digits.
pub(super) fn parse_unix_seconds(text: &str) -> Option<Micros> {
    let (seconds, decimals) = match text.split_once('.') {
        Some((seconds, decimals)) => (seconds, decimals),
        None => (text, ""),
    };
    if !decimals.chars().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let six: String = format!("{decimals}000000").chars().take(6).collect();
    let seconds: u32 = seconds.parse().ok()?;
    Some(Micros::from(seconds) * SECOND + six.parse::<Micros>().ok()?)
}

/// The instant as the API writes it and as failures show it.
pub fn rfc3339(at: Micros) -> String {
    match DateTime::from_timestamp_micros(at) {
        Some(time) => time.to_rfc3339_opts(SecondsFormat::Micros, true),
        None => format!("{at} µs"),
    }
}
