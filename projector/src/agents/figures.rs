//! AgentMetrics of one agent over one window (spec.md §3), from the agent's leads. Pure: the clock is
//! a parameter.

use leadpulse_service::config::HotRule;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::lead::{Industries, Industry, Lead};

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

/// The figures at `now` over the half-open window `(now − days·24 h, now]`. One pass over the leads.
pub fn figures(
    leads: &[Lead],
    industries: &Industries,
    days: u32,
    hot: HotRule,
    now: i64,
) -> Figures {
    let window = Span { length: i64::from(days) * 24 * HOUR, now };
    let hot = (Span { length: i64::from(hot.window_hours) * HOUR, now }, hot.min_deals);
    let mut tally = Tally::new(industries);
    for lead in leads {
        if lead.assigned {
            tally.assigned(lead, &window);
        }
        if lead.won_by
            && let Some(won_at) = lead.closed_won_at.get()
        {
            tally.won(lead, won_at, &window, &hot.0);
        }
    }
    tally.figures(hot.1)
}

/// What has been counted of an agent's leads so far.
struct Tally<'i> {
    assigned: usize,
    won_of_cohort: usize,
    won: usize,
    hot: usize,
    responses: Vec<i64>,
    times_to_close: Vec<i64>,
    amount_sum: Decimal,
    amounts: usize,
    industries: ByIndustry<'i>,
    valid_until: Option<i64>,
}

impl<'i> Tally<'i> {
    fn new(names: &'i Industries) -> Self {
        Self {
            assigned: 0,
            won_of_cohort: 0,
            won: 0,
            hot: 0,
            responses: Vec::new(),
            times_to_close: Vec::new(),
            amount_sum: Decimal::ZERO,
            amounts: 0,
            industries: ByIndustry { names, places: vec![NOWHERE; names.len()], rows: Vec::new() },
            valid_until: None,
        }
    }

    fn assigned(&mut self, lead: &Lead, window: &Span) {
        self.changes_at(window.next_change(lead.entered_at));
        if !window.contains(lead.entered_at) {
            return;
        }
        self.assigned += 1;
        let won = lead.closed_won_at.get().is_some();
        self.won_of_cohort += usize::from(won);
        // From entry to the first touch; a touch before the entry is none of this cohort.
        let response = lead.first_touch_at.get().map(|touch| touch - lead.entered_at);
        self.responses.extend(response.filter(|span| *span >= 0));
        let industry = self.industries.row(lead.industry);
        industry.assigned += 1;
        industry.cohort_won += i64::from(won);
    }

    fn won(&mut self, lead: &Lead, won_at: i64, window: &Span, hot: &Span) {
        self.changes_at(window.next_change(won_at));
        self.changes_at(hot.next_change(won_at));
        self.hot += usize::from(hot.contains(won_at));
        if !window.contains(won_at) {
            return;
        }
        self.won += 1;
        self.times_to_close.extend(Some(won_at - lead.entered_at).filter(|span| *span >= 0));
        let industry = self.industries.row(lead.industry);
        industry.closed_won += 1;
        if lead.deal_amount > Decimal::ZERO {
            industry.amount_sum = add(industry.amount_sum, lead.deal_amount);
            self.amount_sum = add(self.amount_sum, lead.deal_amount);
            self.amounts += 1;
        }
    }

    fn changes_at(&mut self, at: Option<i64>) {
        if let Some(at) = at {
            self.valid_until = Some(self.valid_until.map_or(at, |until| until.min(at)));
        }
    }

    fn figures(self, min_deals: u32) -> Figures {
        let hot_deals_count = count(self.hot);
        Figures {
            assigned_count: count(self.assigned),
            touched_count: count(self.responses.len()),
            cohort_won_count: count(self.won_of_cohort),
            conversion_rate: ratio(count(self.won_of_cohort), self.assigned),
            closed_won_count: count(self.won),
            period_conversion_rate: ratio(count(self.won), self.assigned),
            deals_amount_sum: self.amount_sum,
            deals_amount_count: count(self.amounts),
            avg_deal_size: mean(self.amount_sum, self.amounts),
            time_to_close_count: count(self.times_to_close.len()),
            median_response_seconds: median_seconds(self.responses),
            median_time_to_close_seconds: median_seconds(self.times_to_close),
            hot_deals_count,
            is_hot: hot_deals_count >= i64::from(min_deals),
            industries: self.industries.json(),
            valid_until: self.valid_until,
        }
    }
}

#[derive(Default)]
struct IndustryRow {
    assigned: i64,
    cohort_won: i64,
    closed_won: i64,
    amount_sum: Decimal,
}

/// The industries that came, by their numbers: no lead costs a look-up by name.
struct ByIndustry<'i> {
    names: &'i Industries,
    /// Where an industry's row is in `rows`.
    places: Vec<usize>,
    rows: Vec<(usize, IndustryRow)>,
}

/// The place of what has not come.
const NOWHERE: usize = usize::MAX;

impl ByIndustry<'_> {
    fn row(&mut self, industry: Industry) -> &mut IndustryRow {
        let number = industry.index();
        let place = &mut self.places[number];
        if *place == NOWHERE {
            *place = self.rows.len();
            self.rows.push((number, IndustryRow::default()));
        }
        &mut self.rows[*place].1
    }

    fn json(self) -> Value {
        let entries = self.rows.into_iter().map(|(number, industry)| {
            let figures = json!({
                "assigned": industry.assigned,
                "cohort_won": industry.cohort_won,
                "closed_won": industry.closed_won,
                "amount_sum": industry.amount_sum.normalize().to_string(),
            });
            (self.names.name(number).to_owned(), figures)
        });
        Value::Object(entries.collect())
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
    let middle = micros.len() / 2;
    let even = micros.len().is_multiple_of(2);
    if micros.is_empty() {
        return None;
    }
    let (below, upper, _) = micros.select_nth_unstable(middle);
    let lower = if even { below.iter().max().copied()? } else { *upper };
    Some((lower + *upper) as f64 / (2 * SECOND) as f64)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOT: HotRule = HotRule { window_hours: 72, min_deals: 3 };
    const DAY: i64 = 24 * HOUR;

    fn figures_of(leads: &[Lead], now: i64) -> Figures {
        let mut industries = Industries::default();
        industries.number(None);
        figures(leads, &industries, 7, HOT, now)
    }

    fn lead(entered_at: i64) -> Lead {
        Lead {
            id: (0, 0),
            entered_at,
            first_touch_at: None.into(),
            closed_won_at: None.into(),
            last_activity_at: None.into(),
            deal_amount: Decimal::ZERO,
            industry: Industries::default().number(None),
            assigned: true,
            won_by: false,
            active: true,
        }
    }

    #[test]
    fn the_window_is_half_open_and_valid_until_is_the_instant_at_which_it_changes() {
        let leads = [lead(0), lead(5 * DAY)];
        let at = |now| figures_of(&leads, now);
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
        let figures = figures_of(&[], 0);
        assert_eq!((figures.assigned_count, figures.deals_amount_sum), (0, Decimal::ZERO));
        assert_eq!((figures.conversion_rate, figures.avg_deal_size), (None, None));
        assert_eq!((figures.median_response_seconds, figures.is_hot), (None, false));
    }

    #[test]
    fn sums_beyond_all_money_do_not_end_the_process() {
        let win = Lead {
            closed_won_at: Some(1).into(),
            deal_amount: Decimal::MAX,
            assigned: false,
            won_by: true,
            ..lead(0)
        };
        assert_eq!(figures_of(&[win.clone(), win], 1).deals_amount_sum, Decimal::MAX);
    }
}
