//! The API's answers, read into the naive types. Strict about how things are written: ids and money are
//! strings, instants are RFC 3339 in UTC.

use chrono::DateTime;
use rust_decimal::Decimal;
use serde_json::Value;

use crate::naive::{AgentMetrics, EnteredSource, Kpis, Lead, Lifecycle, Median, Micros, State};

pub(super) fn instant(value: &Value) -> Micros {
    some_instant(value).unwrap_or_else(|| panic!("{value} is no instant"))
}

fn some_instant(value: &Value) -> Option<Micros> {
    let text = text(value)?;
    assert!(text.ends_with('Z'), "{text} is not in UTC");
    let time = DateTime::parse_from_rfc3339(&text);
    Some(time.unwrap_or_else(|error| panic!("{text}: {error}")).timestamp_micros())
}

pub(super) fn id(value: &Value) -> Option<i64> {
    text(value).map(|text| text.parse().unwrap_or_else(|_| panic!("{text} is no id")))
}

fn money(value: &Value) -> Option<Decimal> {
    text(value).map(|text| text.parse().unwrap_or_else(|_| panic!("{text} is no money")))
}

/// A text or null, and nothing else: a missing field is not null.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => None,
        other => panic!("{other} should be a text or null"),
    }
}

pub(super) fn lead(item: &Value) -> Lead {
    let item = Fields(item);
    Lead {
        board_id: id(item.get("board_id")).expect("a board"),
        item_id: id(item.get("item_id")).expect("an item"),
        name: text(item.get("name")),
        group_id: text(item.get("group_id")),
        status_id: id(item.get("status_id")),
        status_label: text(item.get("status_label")),
        assigned_user_id: id(item.get("assigned_user_id")),
        assigned_at: some_instant(item.get("assigned_at")),
        deal_amount: money(item.get("deal_amount")),
        industry: text(item.get("industry")),
        next_call_date: text(item.get("next_call_date"))
            .map(|date| date.parse().unwrap_or_else(|_| panic!("{date} is no date"))),
        entered_at: instant(item.get("entered_at")),
        entered_source: match item.word("entered_source").as_str() {
            "api" => EnteredSource::Api,
            "created" => EnteredSource::Created,
            "first_seen" => EnteredSource::FirstSeen,
            other => panic!("entered_source {other}"),
        },
        first_touch_at: some_instant(item.get("first_touch_at")),
        last_activity_at: some_instant(item.get("last_activity_at")),
        state: match item.word("state").as_str() {
            "open" => State::Open,
            "won" => State::Won,
            "lost" => State::Lost,
            other => panic!("state {other}"),
        },
        closed_won_at: some_instant(item.get("closed_won_at")),
        closed_lost_at: some_instant(item.get("closed_lost_at")),
        closed_by_user_id: id(item.get("closed_by_user_id")),
        lifecycle: match item.word("lifecycle").as_str() {
            "active" => Lifecycle::Active,
            "archived" => Lifecycle::Archived,
            "deleted" => Lifecycle::Deleted,
            other => panic!("lifecycle {other}"),
        },
        last_event_at: instant(item.get("last_event_at")),
        last_seq: item.get("last_seq").to_string().trim_matches('"').parse().expect("a sequence"),
    }
}

struct Fields<'v>(&'v Value);

impl<'v> Fields<'v> {
    fn get(&self, name: &str) -> &'v Value {
        self.0.get(name).unwrap_or_else(|| panic!("`{name}` is missing in {}", self.0))
    }

    fn word(&self, name: &str) -> String {
        text(self.get(name)).unwrap_or_else(|| panic!("`{name}` is null in {}", self.0))
    }
}

/// A duration in seconds: a number within half a microsecond of the exact one.
pub(super) fn assert_seconds(found: &Value, wanted: Option<Micros>, context: &Value) {
    let wanted = wanted.map(|micros| Decimal::from(micros) / Decimal::from(1_000_000));
    assert!(near(found, wanted), "{found} s is not {wanted:?} s in {context}");
}

fn near(found: &Value, wanted: Option<Decimal>) -> bool {
    let tolerance = Decimal::new(1, 6);
    match (found, wanted) {
        (Value::Null, None) => true,
        (Value::Number(number), Some(wanted)) => {
            let text = number.to_string();
            let found = text.parse::<Decimal>().or_else(|_| Decimal::from_scientific(&text));
            found.is_ok_and(|found| (found - wanted).abs() <= tolerance)
        }
        _ => false,
    }
}

fn assert_ratio(found: &Value, wanted: Option<f64>, context: &str) {
    let same = match (found.as_f64(), wanted) {
        (None, None) => found.is_null(),
        (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-9,
        _ => false,
    };
    assert!(same, "{found} is not {wanted:?}: {context}");
}

fn assert_count(found: &Value, wanted: usize, context: &str) {
    assert_eq!(found.as_u64(), u64::try_from(wanted).ok(), "{context}");
}

fn assert_median(found: &Value, n: &Value, wanted: Median, context: &str) {
    assert!(near(found, wanted.seconds()), "{found} is not {wanted:?}: {context}");
    assert_count(n, wanted.n, context);
}

/// The figures of a span, which agents and whole orgs have; the naive implementation has a type for each.
macro_rules! assert_figures {
    ($item:expr, $wanted:expr, $context:expr) => {
        let (item, wanted, context) = ($item, $wanted, $context);
        let field = |name: &str| Fields(item).get(name);
        let told = |name: &str| format!("{name} of {context}");
        let count = |name: &str, wanted| assert_count(field(name), wanted, &told(name));
        let ratio = |name: &str, wanted| assert_ratio(field(name), wanted, &told(name));
        let median =
            |name: &str, n, wanted| assert_median(field(name), field(n), wanted, &told(name));
        count("assigned_count", wanted.assigned_count);
        count("touched_count", wanted.touched_count);
        count("cohort_won_count", wanted.cohort_won_count);
        ratio("conversion_rate", wanted.conversion_rate);
        count("closed_won_count", wanted.closed_won_count);
        ratio("period_conversion_rate", wanted.period_conversion_rate);
        assert_eq!(money(field("deals_amount_sum")), Some(wanted.deals_amount_sum), "{context}");
        count("deals_amount_count", wanted.deals_amount_count);
        assert_eq!(money(field("avg_deal_size")), wanted.avg_deal_size, "{context}");
        median("median_response_seconds", "touched_count", wanted.median_response);
        let closed = "time_to_close_count";
        median("median_time_to_close_seconds", closed, wanted.median_time_to_close);
    };
}

pub(super) fn assert_metrics(item: &Value, wanted: &AgentMetrics, context: &str) {
    let field = |name: &str| Fields(item).get(name);
    let count =
        |name: &str, wanted| assert_count(field(name), wanted, &format!("{name} of {context}"));
    assert_figures!(item, wanted, context);
    count("hot_deals_count", wanted.hot_deals_count);
    assert_eq!(field("is_hot"), wanted.is_hot, "{context}");
    assert_eq!(some_instant(field("last_win_at")), wanted.last_win_at, "{context}");
    assert_eq!(some_instant(field("last_activity_at")), wanted.last_activity_at, "{context}");
    count("active_leads", wanted.active_leads);
    let industries = field("industries").as_object().expect("industries");
    let names: Vec<&String> = wanted.industries.keys().collect();
    assert_eq!(industries.keys().collect::<Vec<_>>(), names, "{context}");
    for (name, wanted) in &wanted.industries {
        let found = Fields(&industries[name]);
        let context = format!("industry {name} of {context}");
        assert_count(found.get("assigned"), wanted.assigned, &context);
        assert_count(found.get("cohort_won"), wanted.cohort_won, &context);
        assert_count(found.get("closed_won"), wanted.closed_won, &context);
        assert_eq!(money(found.get("amount_sum")), Some(wanted.amount_sum), "{context}");
    }
}

/// The figures that move with the clock alone.
pub(super) fn assert_momentum(item: &Value, wanted: &AgentMetrics, now: Micros, context: &str) {
    let momentum = wanted.momentum(now);
    let found = |name: &str| Fields(item).get(name);
    assert_ratio(found("hours_since_last_win"), momentum.hours_since_last_win, context);
    assert_ratio(found("hours_since_last_activity"), momentum.hours_since_last_activity, context);
    assert_ratio(found("burnout_score"), Some(momentum.burnout_score), context);
}

pub(super) fn assert_kpis(item: &Value, wanted: &Kpis, context: &str) {
    assert_figures!(item, wanted, context);
}
