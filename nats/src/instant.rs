//! Instants are UTC with microseconds; more digits are cut off, never rounded (spec.md §1).

pub(crate) mod rfc3339;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

/// The latest instant that an event received now may claim for itself: a clock from the future must not
/// win for ever. What claims more counts as of its reception.
pub fn latest_believed(received_at: DateTime<Utc>) -> DateTime<Utc> {
    received_at + TimeDelta::minutes(5)
}

/// The instant without what is finer than a microsecond.
pub fn cut(at: DateTime<Utc>) -> DateTime<Utc> {
    from_micros(at.timestamp_micros()).unwrap_or(at)
}

const FIRST_MICROS: i64 = -62_135_596_800_000_000;
const LAST_MICROS: i64 = 253_402_300_799_999_999;

/// The first instant of the year 1: there is none before it.
pub const FIRST: DateTime<Utc> = match DateTime::from_timestamp_micros(FIRST_MICROS) {
    Some(first) => first,
    None => DateTime::<Utc>::MIN_UTC,
};

/// Years 1 to 9999: what RFC 3339 can write and every store can hold.
pub fn from_micros(micros: i64) -> Option<DateTime<Utc>> {
    if !(FIRST_MICROS..=LAST_MICROS).contains(&micros) {
        return None;
    }
    Utc.timestamp_micros(micros).single()
}

/// A date and time in one of monday.com's spellings: RFC 3339, or `2025-02-04 19:20:54 +0000`, or the
/// same with `UTC`.
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let at = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f %z"))
        .or_else(|_| {
            let zone = text.strip_suffix("UTC").unwrap_or(text);
            DateTime::parse_from_str(&format!("{}+0000", zone.trim_end()), "%Y-%m-%d %H:%M:%S%.f%z")
        })
        .ok()?;
    from_micros(at.timestamp_micros())
}

/// An instant as an operator types it: in one of the spellings above, or as its age now, such as 90m, 2h, 3d.
pub fn parse_or_age(text: &str) -> Result<DateTime<Utc>, String> {
    let age = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: i64 = number.parse().ok()?;
        let age = match unit {
            "s" => TimeDelta::try_seconds(number),
            "m" => TimeDelta::try_minutes(number),
            "h" => TimeDelta::try_hours(number),
            "d" => TimeDelta::try_days(number),
            _ => None,
        }?;
        Utc::now().checked_sub_signed(age)
    };
    parse(text).or_else(age).ok_or_else(|| {
        "neither an instant such as 2026-03-02T10:00:00Z nor an age such as 2h".into()
    })
}

/// Unix seconds with decimals, as text, exactly.
pub fn parse_unix_seconds(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 12 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let micros: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros = whole.parse::<i64>().ok()?.checked_mul(1_000_000)? + micros.parse::<i64>().ok()?;
    from_micros(if negative { -micros } else { micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_cut_after_six_decimals_and_never_pass_through_a_float() {
        let micros = |text| parse_unix_seconds(text).map(|at| at.timestamp_micros());
        assert_eq!(micros("1772445600.6281069"), Some(1_772_445_600_628_106));
        assert_eq!(micros("1772445600.1"), Some(1_772_445_600_100_000));
        assert_eq!(micros("1772445600"), Some(1_772_445_600_000_000));
        assert_eq!(micros("9007199254.740993"), Some(9_007_199_254_740_993));
        for text in ["", ".", "x", "1.2.3", "1e9", "99999999999999999999", "--1", "+1"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }

    #[test]
    fn mondays_spellings_are_one_instant() {
        let expected = parse("2025-02-04T19:20:54Z").unwrap();
        for text in [
            "2025-02-04T19:20:54.000Z",
            "2025-02-04 19:20:54 +0000",
            "2025-02-04 19:20:54 UTC",
            "2025-02-04T21:20:54+02:00",
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        assert_eq!(
            parse("2025-02-04T19:20:54.1234567Z").unwrap().timestamp_micros() % 1_000_000,
            123_456
        );
        assert_eq!(parse("2025-02-30T00:00:00Z"), None);
        assert_eq!(parse("soon"), None);
    }

    #[test]
    fn an_age_is_reckoned_from_now_and_may_be_as_long_as_time() {
        let hours = |text| {
            let at = parse_or_age(text).unwrap();
            (Utc::now() - at).num_hours()
        };
        assert_eq!((hours("120m"), hours("3d"), hours("7200s")), (2, 72, 2));
        assert_eq!(parse_or_age("2025-02-04T19:20:54Z").ok(), parse("2025-02-04T19:20:54Z"));
        for text in ["", "h", "2", "2w", "\u{5d0}", "99999999999999999d", "9999999999d"] {
            assert!(parse_or_age(text).is_err(), "{text}");
        }
    }
}
