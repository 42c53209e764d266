//! §3: the figures of one agent over one window.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;

use super::{
    instant::{DAY, HOUR, Micros},
    lead::{Lead, Lifecycle, State},
};
use crate::rules::Rules;

/// The half-open `(from, to]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    pub from: Micros,
    pub to: Micros,
}

impl Window {
    pub fn of_days(days: u32, to: Micros) -> Self {
        Self { from: to - Micros::from(days) * DAY, to }
    }

    pub fn of_hours(hours: u32, to: Micros) -> Self {
        Self { from: to - Micros::from(hours) * HOUR, to }
    }

    /// The window of the same length just before.
    pub fn previous(self) -> Self {
        Self { from: self.from - (self.to - self.from), to: self.from }
    }

    pub fn contains(self, at: Option<Micros>) -> bool {
        at.is_some_and(|at| self.from < at && at <= self.to)
    }
}

/// An exact median, kept doubled: the mean of two whole microseconds may end in a half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Median {
    pub n: usize,
    pub twice_micros: Option<i64>,
}

impl Median {
    pub fn of(values: impl Iterator<Item = Micros>) -> Self {
        let mut values: Vec<Micros> = values.collect();
        values.sort_unstable();
        let n = values.len();
        let twice_micros = (n > 0).then(|| values[(n - 1) / 2] + values[n / 2]);
        Self { n, twice_micros }
    }

    /// In seconds, as an exact decimal.
    pub fn seconds(self) -> Option<Decimal> {
        self.twice_micros.map(|twice| Decimal::from(twice) / Decimal::from(2_000_000))
    }
}

/// The part of an agent's figures that belongs to one industry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Industry {
    pub assigned: usize,
    pub cohort_won: usize,
    pub closed_won: usize,
    pub amount_sum: Decimal,
}

/// One row of AgentMetrics at an instant.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentMetrics {
    pub agent_id: i64,
    pub window_days: u32,
    pub assigned_count: usize,
    pub touched_count: usize,
    pub cohort_won_count: usize,
    pub conversion_rate: Option<f64>,
    pub closed_won_count: usize,
    pub period_conversion_rate: Option<f64>,
    pub deals_amount_sum: Decimal,
    pub deals_amount_count: usize,
    pub avg_deal_size: Option<Decimal>,
    pub median_response: Median,
    pub median_time_to_close: Median,
    pub hot_deals_count: usize,
    pub is_hot: bool,
    pub last_win_at: Option<Micros>,
    pub last_activity_at: Option<Micros>,
    pub active_leads: usize,
    pub industries: BTreeMap<String, Industry>,
}

/// Everybody who has a lead or has won one, deleted leads aside.
pub fn agents(leads: &[&Lead]) -> BTreeSet<i64> {
    leads
        .iter()
        .filter(|lead| lead.lifecycle != Lifecycle::Deleted)
        .flat_map(|lead| [lead.assigned_user_id, lead.closed_by_user_id])
        .flatten()
        .collect()
}

impl AgentMetrics {
    pub fn of(leads: &[&Lead], rules: &Rules, agent_id: i64, days: u32, now: Micros) -> Self {
        let window = Window::of_days(days, now);
        let living: Vec<&Lead> =
            leads.iter().copied().filter(|lead| lead.lifecycle != Lifecycle::Deleted).collect();
        let assigned: Vec<&Lead> =
            living.iter().copied().filter(|lead| lead.assigned_user_id == Some(agent_id)).collect();
        let won: Vec<&Lead> = living
            .iter()
            .copied()
            .filter(|lead| lead.closed_by_user_id == Some(agent_id))
            .collect();
        let figures = Figures::of(&assigned, &won, window);
        let hot = Window::of_hours(rules.hot_window_hours, now);
        let hot_deals_count = won.iter().filter(|lead| hot.contains(lead.closed_won_at)).count();
        Self {
            agent_id,
            window_days: days,
            assigned_count: figures.cohort.len(),
            touched_count: figures.touched.len(),
            cohort_won_count: figures.cohort_won(),
            conversion_rate: ratio(figures.cohort_won(), figures.cohort.len()),
            closed_won_count: figures.closed_won.len(),
            period_conversion_rate: ratio(figures.closed_won.len(), figures.cohort.len()),
            deals_amount_sum: figures.amount_sum(),
            deals_amount_count: figures.amounts().len(),
            avg_deal_size: figures.avg_deal_size(),
            median_response: figures.median_response(),
            median_time_to_close: figures.median_time_to_close(),
            hot_deals_count,
            is_hot: hot_deals_count >= rules.hot_min_deals as usize,
            last_win_at: won.iter().filter_map(|lead| lead.closed_won_at).max(),
            last_activity_at: assigned.iter().filter_map(|lead| lead.last_activity_at).max(),
            active_leads: active(&assigned),
            industries: figures.industries(),
        }
    }
}

/// What moves with the clock alone, computed at the read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Momentum {
    pub hours_since_last_win: Option<f64>,
    pub hours_since_last_activity: Option<f64>,
    /// 1 = fresh, 0 = burnt out.
    pub burnout_score: f64,
}

impl AgentMetrics {
    pub fn momentum(&self, now: Micros) -> Momentum {
        #[expect(clippy::cast_precision_loss, reason = "a span of microseconds, exact in a double")]
        let hours = |at: Option<Micros>| at.map(|at| (now - at) as f64 / HOUR as f64);
        let fresh =
            |hours: Option<f64>, span: f64| hours.map_or(0.0, |h| f64::max(0.0, 1.0 - h / span));
        let (win, activity) = (hours(self.last_win_at), hours(self.last_activity_at));
        Momentum {
            hours_since_last_win: win,
            hours_since_last_activity: activity,
            burnout_score: (fresh(win, 336.0) + fresh(activity, 168.0)) / 2.0,
        }
    }

    /// The value that a leaderboard is sorted by, for the metrics that the tests sort by.
    pub fn value_of(&self, metric: &str) -> Option<Decimal> {
        let count = |n: usize| Decimal::from(n);
        match metric {
            "conversion_rate" => {
                let rate = || count(self.cohort_won_count) / count(self.assigned_count);
                (self.assigned_count > 0).then(rate)
            }
            "deals_amount_sum" => Some(self.deals_amount_sum),
            "median_response_seconds" => self.median_response.seconds(),
            "closed_won_count" => Some(count(self.closed_won_count)),
            other => panic!("the tests do not sort by {other}"),
        }
    }

    /// Of how many leads the metric is made.
    pub fn n_of(&self, metric: &str) -> usize {
        match metric {
            "conversion_rate" => self.assigned_count,
            "deals_amount_sum" => self.deals_amount_count,
            "median_response_seconds" => self.median_response.n,
            "closed_won_count" => self.closed_won_count,
            other => panic!("the tests do not sort by {other}"),
        }
    }
}

/// What an agent's row and an org's KPIs have in common.
pub(super) struct Figures<'l> {
    pub(super) cohort: Vec<&'l Lead>,
    pub(super) touched: Vec<&'l Lead>,
    pub(super) closed_won: Vec<&'l Lead>,
}

impl<'l> Figures<'l> {
    pub(super) fn of(assigned: &[&'l Lead], won: &[&'l Lead], window: Window) -> Self {
        let cohort: Vec<&Lead> = assigned
            .iter()
            .copied()
            .filter(|lead| window.contains(Some(lead.entered_at)))
            .collect();
        let touched =
            cohort.iter().copied().filter(|lead| lead.response().is_some_and(|r| r >= 0)).collect();
        let closed_won =
            won.iter().copied().filter(|lead| window.contains(lead.closed_won_at)).collect();
        Self { cohort, touched, closed_won }
    }

    pub(super) fn cohort_won(&self) -> usize {
        self.cohort.iter().filter(|lead| lead.closed_won_at.is_some()).count()
    }

    pub(super) fn amounts(&self) -> Vec<Decimal> {
        self.closed_won.iter().filter_map(|lead| positive_amount(lead)).collect()
    }

    pub(super) fn amount_sum(&self) -> Decimal {
        self.amounts().into_iter().sum()
    }

    /// A mean may have no end: six decimals of it, half to even.
    pub(super) fn avg_deal_size(&self) -> Option<Decimal> {
        let amounts = self.amounts();
        (!amounts.is_empty())
            .then(|| (self.amount_sum() / Decimal::from(amounts.len())).round_dp(6))
    }

    pub(super) fn median_response(&self) -> Median {
        Median::of(self.touched.iter().filter_map(|lead| lead.response()))
    }

    pub(super) fn median_time_to_close(&self) -> Median {
        Median::of(
            self.closed_won.iter().filter_map(|lead| lead.time_to_close()).filter(|t| *t >= 0),
        )
    }

    fn industries(&self) -> BTreeMap<String, Industry> {
        let mut industries: BTreeMap<String, Industry> = BTreeMap::new();
        for lead in &self.cohort {
            let industry = industries.entry(industry_key(lead)).or_default();
            industry.assigned += 1;
            industry.cohort_won += usize::from(lead.closed_won_at.is_some());
        }
        for lead in &self.closed_won {
            let industry = industries.entry(industry_key(lead)).or_default();
            industry.closed_won += 1;
            industry.amount_sum += positive_amount(lead).unwrap_or_default();
        }
        industries
    }
}

fn positive_amount(lead: &Lead) -> Option<Decimal> {
    lead.deal_amount.filter(|amount| *amount > Decimal::ZERO)
}

pub(super) fn industry_key(lead: &Lead) -> String {
    lead.industry.as_ref().map_or_else(|| "unknown".to_owned(), |text| text.to_lowercase())
}

fn active(assigned: &[&Lead]) -> usize {
    let is_active =
        |lead: &&&Lead| lead.state == State::Open && lead.lifecycle == Lifecycle::Active;
    assigned.iter().filter(is_active).count()
}

#[allow(clippy::cast_precision_loss, reason = "counts of a test are far below 2^52")]
pub(super) fn ratio(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
