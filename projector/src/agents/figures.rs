//! AgentMetrics of one agent over one window (spec.md §3), from the agent's leads. Pure: the clock is
//! a parameter.

use std::collections::BTreeMap;

use leadpulse_service::config::HotRule;
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// Instants and spans are microseconds.
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3600 * SECOND;

/// The figures of a span of time, by the names that they have in every answer (spec.md §3).
pub const WINDOWED: [&str; 10] = [
    "assigned_count",
    "touched_count",
    "cohort_won_count",
    "conversion_rate",
    "closed_won_count",
    "period_conversion_rate",
    "deals_amount_sum",
    "avg_deal_size",
    "median_response_seconds",
    "median_time_to_close_seconds",
];

/// A lead that is assigned to the agent and entered late enough to matter.
#[derive(Debug, Clone)]
pub struct CohortLead {
    pub entered_at: i64,
    pub first_touch_at: Option<i64>,
    pub won: bool,
    pub industry: Option<String>,
}

/// A lead that the agent won late enough to matter.
#[derive(Debug, Clone)]
pub struct Win {
    pub entered_at: i64,
    pub closed_won_at: i64,
    pub deal_amount: Option<Decimal>,
    pub industry: Option<String>,
}

/// What does not depend on a window.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Leads assigned to the agent or won by it, ever; with none, it is no agent.
    pub leads: i64,
    pub active_leads: i64,
    pub last_win_at: Option<i64>,
    pub last_activity_at: Option<i64>,
}

/// The leads behind an agent's figures.
#[derive(Debug, Clone, Default)]
pub struct Leads {
    pub cohort: Vec<CohortLead>,
    pub wins: Vec<Win>,
    pub totals: Totals,
}

/// A row of AgentMetrics without its key.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    pub assigned_count: i64,
    pub touched_count: i64,
    pub cohort_won_count: i64,
    pub conversion_rate: Option<f64>,
    pub closed_won_count: i64,
    pub period_conversion_rate: Option<f64>,
    pub deals_amount_sum: Decimal,
    pub deals_amount_count: i64,
    pub avg_deal_size: Option<Decimal>,
    pub median_response_seconds: Option<f64>,
    pub median_time_to_close_seconds: Option<f64>,
    pub time_to_close_count: i64,
    pub hot_deals_count: i64,
    pub is_hot: bool,
    pub industries: Value,
    /// The next instant at which a lead enters or leaves a window by the clock alone.
    pub valid_until: Option<i64>,
}

#[derive(Default)]
struct Industry {
    assigned: i64,
    cohort_won: i64,
    closed_won: i64,
    amount_sum: Decimal,
}

/// The figures at `now` over the half-open window `(now − days·24 h, now]`.
pub fn figures(leads: &Leads, days: u32, hot: HotRule, now: i64) -> Figures {
    let window = Span { length: i64::from(days) * 24 * HOUR, now };
    let hot_window = Span { length: i64::from(hot.window_hours) * HOUR, now };
    let cohort: Vec<_> =
        leads.cohort.iter().filter(|lead| window.contains(lead.entered_at)).collect();
    let wins: Vec<_> = leads.wins.iter().filter(|win| window.contains(win.closed_won_at)).collect();
    let mut industries = BTreeMap::<String, Industry>::new();
    for lead in &cohort {
        let industry = industries.entry(industry_key(lead.industry.as_deref())).or_default();
        industry.assigned += 1;
        industry.cohort_won += i64::from(lead.won);
    }
    for win in &wins {
        let industry = industries.entry(industry_key(win.industry.as_deref())).or_default();
        industry.closed_won += 1;
        industry.amount_sum = add(industry.amount_sum, win.paid().unwrap_or_default());
    }
    let responses: Vec<i64> = cohort.iter().filter_map(|lead| lead.response()).collect();
    let times_to_close: Vec<i64> = wins.iter().filter_map(|win| win.time_to_close()).collect();
    let amounts: Vec<Decimal> = wins.iter().filter_map(|win| win.paid()).collect();
    let deals_amount_sum = amounts.iter().copied().fold(Decimal::ZERO, add);
    let cohort_won_count = count(cohort.iter().filter(|lead| lead.won).count());
    let hot_deals_count =
        count(leads.wins.iter().filter(|win| hot_window.contains(win.closed_won_at)).count());
    Figures {
        assigned_count: count(cohort.len()),
        touched_count: count(responses.len()),
        cohort_won_count,
        conversion_rate: ratio(cohort_won_count, cohort.len()),
        closed_won_count: count(wins.len()),
        period_conversion_rate: ratio(count(wins.len()), cohort.len()),
        deals_amount_sum,
        deals_amount_count: count(amounts.len()),
        avg_deal_size: mean(deals_amount_sum, amounts.len()),
        time_to_close_count: count(times_to_close.len()),
        median_response_seconds: median_seconds(responses),
        median_time_to_close_seconds: median_seconds(times_to_close),
        hot_deals_count,
        is_hot: hot_deals_count >= i64::from(hot.min_deals),
        industries: industries_json(industries),
        valid_until: valid_until(leads, &window, &hot_window),
    }
}

impl CohortLead {
    /// From entry to the first touch; a touch before the entry is none of this cohort.
    fn response(&self) -> Option<i64> {
        self.first_touch_at.map(|touch| touch - self.entered_at).filter(|span| *span >= 0)
    }
}

impl Win {
    fn time_to_close(&self) -> Option<i64> {
        Some(self.closed_won_at - self.entered_at).filter(|span| *span >= 0)
    }

    fn paid(&self) -> Option<Decimal> {
        self.deal_amount.filter(|amount| *amount > Decimal::ZERO)
    }
}

/// The half-open window `(now − length, now]`.
struct Span {
    length: i64,
    now: i64,
}

impl Span {
    fn contains(&self, at: i64) -> bool {
        self.now - self.length < at && at <= self.now
    }

    /// When the clock alone takes this instant into the window or out of it.
    fn next_change(&self, at: i64) -> Option<i64> {
        if at > self.now {
            Some(at)
        } else if self.contains(at) {
            Some(at + self.length)
        } else {
            None
        }
    }
}

fn valid_until(leads: &Leads, window: &Span, hot: &Span) -> Option<i64> {
    let entries = leads.cohort.iter().filter_map(|lead| window.next_change(lead.entered_at));
    let wins = leads.wins.iter().filter_map(|win| window.next_change(win.closed_won_at));
    let hot_wins = leads.wins.iter().filter_map(|win| hot.next_change(win.closed_won_at));
    entries.chain(wins).chain(hot_wins).min()
}

fn industry_key(industry: Option<&str>) -> String {
    industry.map_or_else(|| "unknown".to_owned(), str::to_lowercase)
}

fn industries_json(industries: BTreeMap<String, Industry>) -> Value {
    let entries = industries.into_iter().map(|(name, industry)| {
        let figures = json!({
            "assigned": industry.assigned,
            "cohort_won": industry.cohort_won,
            "closed_won": industry.closed_won,
            "amount_sum": industry.amount_sum.normalize().to_string(),
        });
        (name, figures)
    });
    Value::Object(entries.collect())
}

/// Sums beyond 28 digits are no money; they stop at the largest amount instead of ending the process.
pub(crate) fn add(sum: Decimal, amount: Decimal) -> Decimal {
    sum.checked_add(amount).unwrap_or(Decimal::MAX)
}

/// Six decimals: a mean may have no end.
pub(crate) fn mean(sum: Decimal, n: usize) -> Option<Decimal> {
    let n = Decimal::from(n);
    sum.checked_div(n).map(|mean| mean.round_dp(6).normalize())
}

#[expect(clippy::cast_precision_loss, reason = "a count of leads is far below 2^53")]
fn ratio(part: i64, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// The exact median in seconds; of an even number the mean of the two middle values.
#[expect(clippy::cast_precision_loss, reason = "a span of microseconds below 142 years is exact")]
fn median_seconds(mut micros: Vec<i64>) -> Option<f64> {
    micros.sort_unstable();
    let upper = *micros.get(micros.len() / 2)?;
    let lower = *micros.get((micros.len() - 1) / 2)?;
    Some((lower + upper) as f64 / (2 * SECOND) as f64)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: HotRule = HotRule { window_hours: 72, min_deals: 3 };
    const DAY: i64 = 24 * HOUR;

    fn lead(entered_at: i64) -> CohortLead {
        CohortLead { entered_at, first_touch_at: None, won: false, industry: None }
    }

    #[test]
    fn the_window_is_half_open_and_valid_until_is_the_instant_at_which_it_changes() {
        let leads = Leads { cohort: vec![lead(0), lead(5 * DAY)], ..Leads::default() };
        let at = |now| figures(&leads, 7, HOT, now);
        let before = at(7 * DAY - 1);
        assert_eq!((before.assigned_count, before.valid_until), (2, Some(7 * DAY)));
        let after = at(7 * DAY);
        assert_eq!((after.assigned_count, after.valid_until), (1, Some(12 * DAY)));
        let early = at(5 * DAY - 1);
        assert_eq!(
            (early.assigned_count, early.valid_until),
            (1, Some(5 * DAY)),
            "a lead of the future enters"
        );
        assert_eq!(at(12 * DAY).valid_until, None);
    }

    #[test]
    fn a_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        assert_eq!(median_seconds(vec![]), None);
        assert_eq!(median_seconds(vec![3 * SECOND]), Some(3.0));
        assert_eq!(median_seconds(vec![4 * SECOND, SECOND]), Some(2.5));
        assert_eq!(median_seconds(vec![9 * SECOND, SECOND, 2 * SECOND]), Some(2.0));
    }

    #[test]
    fn what_there_is_none_of_is_null_and_not_zero() {
        let figures = figures(&Leads::default(), 7, HOT, 0);
        assert_eq!((figures.assigned_count, figures.deals_amount_sum), (0, Decimal::ZERO));
        assert_eq!((figures.conversion_rate, figures.avg_deal_size), (None, None));
        assert_eq!((figures.median_response_seconds, figures.is_hot), (None, false));
    }

    #[test]
    fn sums_beyond_all_money_do_not_end_the_process() {
        let win = Win {
            entered_at: 0,
            closed_won_at: 1,
            deal_amount: Some(Decimal::MAX),
            industry: None,
        };
        let leads = Leads { wins: vec![win.clone(), win], ..Leads::default() };
        assert_eq!(figures(&leads, 7, HOT, 1).deals_amount_sum, Decimal::MAX);
    }
}
