//! An instant as each message of the stream has it: RFC 3339, in UTC, with all six digits of its
//! microseconds. It is written twice for every webhook, so without the machinery of formatting.

use chrono::{DateTime, Datelike, SecondsFormat, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    match usual(*at).as_ref().map(|text| str::from_utf8(text)) {
        Some(Ok(text)) => to.serialize_str(text),
        _ => to.serialize_str(&at.to_rfc3339_opts(SecondsFormat::Micros, true)),
    }
}

/// In any spelling that chrono reads.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    DateTime::deserialize(from)
}

/// Nothing for years of more than four digits and for leap seconds.
fn usual(at: DateTime<Utc>) -> Option<[u8; 27]> {
    let year = u32::try_from(at.year()).ok().filter(|year| *year <= 9999)?;
    let micros = Some(at.timestamp_subsec_micros()).filter(|micros| *micros < 1_000_000)?;
    let numbers = [
        (year, 1000, b'-'),
        (at.month(), 10, b'-'),
        (at.day(), 10, b'T'),
        (at.hour(), 10, b':'),
        (at.minute(), 10, b':'),
        (at.second(), 10, b'.'),
        (micros, 100_000, b'Z'),
    ];
    let mut text = [0; 27];
    let mut places = text.iter_mut();
    for (number, first_digit, then) in numbers {
        let mut digit = first_digit;
        while digit > 0 {
            *places.next()? = b'0' + u8::try_from(number / digit % 10).ok()?;
            digit /= 10;
        }
        *places.next()? = then;
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::instant::{FIRST_MICROS, LAST_MICROS, from_micros};

    fn written(at: DateTime<Utc>) -> String {
        let mut text = Vec::new();
        serialize(&at, &mut serde_json::Serializer::new(&mut text)).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    proptest! {
        #[test]
        fn it_is_what_chrono_writes(micros in FIRST_MICROS..=LAST_MICROS) {
            let at = from_micros(micros).unwrap();
            prop_assert_eq!(written(at), at.to_rfc3339_opts(SecondsFormat::Micros, true));
            prop_assert!(usual(at).is_some());
        }
    }

    #[test]
    fn what_is_not_usual_is_written_all_the_same() {
        for at in [DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC] {
            assert_eq!(written(at), at.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
        let leap = DateTime::from_timestamp(1_483_228_799, 1_500_000_000).unwrap();
        assert_eq!(written(leap), "2016-12-31T23:59:60.500000Z");
    }
}
