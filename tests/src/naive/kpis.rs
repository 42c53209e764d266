//! §5: the figures of a whole org, or of one board or industry of it.

use rust_decimal::Decimal;

use super::{
    lead::{Lead, Lifecycle},
    metrics::{Figures, Median, Window, industry_key, ratio},
};

/// Section 3's definitions without the agent condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Kpis {
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
}

impl Kpis {
    /// "Assigned" means has any owner; a win counts whoever closed it.
    pub fn of(leads: &[&Lead], window: Window) -> Self {
        let won: Vec<&Lead> =
            leads.iter().copied().filter(|lead| lead.lifecycle != Lifecycle::Deleted).collect();
        let assigned: Vec<&Lead> =
            won.iter().copied().filter(|lead| lead.assigned_user_id.is_some()).collect();
        let figures = Figures::of(&assigned, &won, window);
        Self {
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
        }
    }

    /// Of one board.
    pub fn of_board(leads: &[&Lead], board_id: i64, window: Window) -> Self {
        let own: Vec<&Lead> =
            leads.iter().copied().filter(|lead| lead.board_id == board_id).collect();
        Self::of(&own, window)
    }

    /// Of one industry, by its lower-cased name.
    pub fn of_industry(leads: &[&Lead], industry: &str, window: Window) -> Self {
        let own: Vec<&Lead> =
            leads.iter().copied().filter(|lead| industry_key(lead) == industry).collect();
        Self::of(&own, window)
    }
}
