//! Spans of time that a request asks for.

use chrono::{DateTime, LocalResult, NaiveDate, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use leadpulse_service::config::Org;

use crate::params::Params;

/// What a KPI is over: the last days before the read, or a fixed span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    LastDays(u32),
    Fixed { from: DateTime<Utc>, to: DateTime<Utc> },
}

/// The half-open `(from, to]` (spec.md §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
}

impl Period {
    pub(crate) fn at(self, now: DateTime<Utc>) -> Span {
        match self {
            Self::LastDays(days) => Span { from: now - TimeDelta::days(i64::from(days)), to: now },
            Self::Fixed { from, to } => Span { from, to },
        }
    }

    /// `window`, or `from` and `to`; without any, 30 days or the org's middle window.
    pub(crate) fn read(params: &mut Params, org: &Org) -> Self {
        let days = window_if_given(params, org);
        let (from, to) = (instant(params, "from", org), instant(params, "to", org));
        match (days, from, to) {
            (Some(days), None, None) => Self::LastDays(days),
            (None, Some(from), Some(to)) => {
                if from >= to {
                    params.fault("to", "must be later than `from`");
                }
                Self::Fixed { from, to }
            }
            (None, None, None) => Self::LastDays(default_window(org)),
            (Some(_), _, _) => {
                params.fault("window", "goes without `from` and `to`");
                Self::LastDays(default_window(org))
            }
            (None, from, _) => {
                let missing = if from.is_some() { "to" } else { "from" };
                params.fault(missing, "is missing: a span has two ends");
                Self::LastDays(default_window(org))
            }
        }
    }
}

impl Span {
    /// The span of the same length just before; no instant is before the first one.
    pub(crate) fn previous(self) -> Self {
        let from = self.from - (self.to - self.from);
        Self { from: from.max(leadpulse_nats::instant::FIRST), to: self.from }
    }
}

/// `window=30d`: one of the org's windows.
pub(crate) fn window(params: &mut Params, org: &Org) -> u32 {
    window_if_given(params, org).unwrap_or_else(|| default_window(org))
}

fn window_if_given(params: &mut Params, org: &Org) -> Option<u32> {
    params.one("window", |text| {
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
        days.filter(|days| org.windows.contains(days)).ok_or_else(|| {
            let known: Vec<String> = org.windows.iter().map(|days| format!("{days}d")).collect();
            format!("must be one of: {}", known.join(", "))
        })
    })
}

fn default_window(org: &Org) -> u32 {
    let middle = org.windows.get(org.windows.len() / 2).copied().unwrap_or(30);
    if org.windows.contains(&30) { 30 } else { middle }
}

/// An RFC 3339 instant, or a date: its midnight in the org's time zone.
pub(crate) fn instant(params: &mut Params, name: &'static str, org: &Org) -> Option<DateTime<Utc>> {
    params.one(name, |text| {
        // An unescaped `+` of an offset arrives as a space.
        let text = text.replace(' ', "+");
        let at = DateTime::parse_from_rfc3339(&text).map(|at| at.to_utc()).ok();
        let at = at.or_else(|| midnight(text.parse().ok()?, org.time_zone));
        at.and_then(|at| leadpulse_nats::instant::from_micros(at.timestamp_micros()))
            .ok_or_else(|| "must be an instant such as 2026-03-02T10:00:00Z, or a date".to_owned())
    })
}

/// The first instant of a day. Where the clock skips midnight, the day begins after the gap.
pub(crate) fn midnight(date: NaiveDate, zone: Tz) -> Option<DateTime<Utc>> {
    let mut local = date.and_hms_opt(0, 0, 0)?;
    for _ in 0..=8 {
        match zone.from_local_datetime(&local) {
            LocalResult::Single(at) | LocalResult::Ambiguous(at, _) => return Some(at.to_utc()),
            LocalResult::None => local += TimeDelta::minutes(15),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_without_midnight_begins_after_the_gap() {
        let date = NaiveDate::from_ymd_opt(2018, 11, 4).unwrap();
        let at = midnight(date, chrono_tz::America::Sao_Paulo).unwrap();
        assert_eq!(at.to_rfc3339(), "2018-11-04T03:00:00+00:00");
    }

    #[test]
    fn the_previous_span_ends_where_this_one_begins() {
        let now = DateTime::from_timestamp(1_772_445_600, 0).unwrap();
        let span = Period::LastDays(7).at(now);
        assert_eq!(span.previous().to, span.from);
        assert_eq!(span.previous().from, now - TimeDelta::days(14));
        let all = Span { from: leadpulse_nats::instant::FIRST, to: now };
        assert_eq!(all.previous().from, leadpulse_nats::instant::FIRST);
    }
}
