//! How values are written for clients: ids are strings, money is a decimal string, instants are
//! RFC 3339 UTC with microseconds, durations are seconds.

use std::{
    fmt::{self, Display},
    time::Duration,
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Serializer;

pub(crate) fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Milliseconds with three decimals, as `Server-Timing` has them.
pub(crate) struct Milliseconds(pub(crate) Duration);

impl Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

/// A decimal in its one spelling: no trailing zeros, no exponent.
pub(crate) fn money(amount: Decimal) -> String {
    amount.normalize().to_string()
}

/// A span in seconds: the float nearest to the exact microseconds.
#[expect(clippy::cast_precision_loss, reason = "a span of microseconds below 285 years is exact")]
pub(crate) fn seconds(span: TimeDelta) -> f64 {
    span.num_microseconds().map_or(f64::MAX, |micros| micros as f64 / 1e6)
}

#[expect(clippy::cast_precision_loss, reason = "a count of leads is far below 2^53")]
pub(crate) fn ratio(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The mean of money, of six decimals at most: it may have no end.
pub(crate) fn mean(sum: Decimal, n: i64) -> Option<Decimal> {
    sum.checked_div(Decimal::from(n)).map(|mean| mean.round_dp(6).normalize())
}

/// For `#[serde(serialize_with)]`: ids, money and instants, each also where it may be missing.
pub(crate) mod wire {
    use super::*;

    pub(crate) fn id<S: Serializer>(id: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(crate) fn some_id<S: Serializer>(
        id: &Option<i64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => serializer.collect_str(id),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn money<S: Serializer>(amount: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::money(*amount))
    }

    pub(crate) fn some_money<S: Serializer>(
        amount: &Option<Decimal>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match amount {
            Some(amount) => serializer.serialize_str(&super::money(*amount)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn instant<S: Serializer>(
        at: &DateTime<Utc>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::instant(*at))
    }

    pub(crate) fn some_instant<S: Serializer>(
        at: &Option<DateTime<Utc>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_str(&super::instant(*at)),
            None => serializer.serialize_none(),
        }
    }
}
