//! Which leads count for a figure, what each contributes, and the figure that they make.

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{Counted, Lead};
use crate::{
    agents::figures::{add, mean},
    ops::fields,
};

/// Whose figure it is, when, and over which time.
pub(super) struct View {
    pub(super) agent_id: i64,
    pub(super) at: DateTime<Utc>,
    pub(super) days: u32,
    pub(super) hot_hours: u32,
}

impl View {
    fn since(&self, at: DateTime<Utc>, span: TimeDelta) -> bool {
        self.at - span < at && at <= self.at
    }

    fn in_window(&self, at: DateTime<Utc>) -> bool {
        self.since(at, TimeDelta::days(i64::from(self.days)))
    }

    fn owns(&self, lead: &Lead) -> bool {
        lead.assigned_user_id == Some(self.agent_id)
    }

    fn in_cohort(&self, lead: &Lead) -> bool {
        self.owns(lead) && self.in_window(lead.entered_at)
    }

    fn won(&self, lead: &Lead, within: impl Fn(DateTime<Utc>) -> bool) -> bool {
        lead.closed_by_user_id == Some(self.agent_id) && lead.closed_won_at.is_some_and(within)
    }

    pub(super) fn cohort_size(&self, leads: &[Lead]) -> usize {
        leads.iter().filter(|lead| self.in_cohort(lead)).count()
    }

    /// What the figure means, and the leads that it is made of.
    pub(super) fn counted(&self, metric: &str, leads: &[Lead]) -> (&'static str, Vec<Counted>) {
        let wins = |lead: &Lead| self.won(lead, |at| self.in_window(at));
        let of = |contributes: &dyn Fn(&Lead) -> Option<Value>| -> Vec<Counted> {
            leads.iter().filter_map(|lead| Some(lead.counted(contributes(lead)?))).collect()
        };
        match metric {
            "assigned_count" => (
                "leads assigned to the agent that entered in the window",
                of(&|lead| self.in_cohort(lead).then(|| fields::instant(lead.entered_at))),
            ),
            "touched_count" => (
                "of those, the ones touched at or after their entry",
                of(&|lead| lead.response().filter(|_| self.in_cohort(lead)).map(seconds)),
            ),
            "cohort_won_count" => (
                "of the leads that entered in the window, the ones won",
                of(&|lead| {
                    lead.closed_won_at.filter(|_| self.in_cohort(lead)).map(fields::instant)
                }),
            ),
            "conversion_rate" => (
                "won leads among the assigned ones that entered in the window",
                of(&|lead| self.in_cohort(lead).then(|| json!(lead.closed_won_at.is_some()))),
            ),
            "closed_won_count" | "period_conversion_rate" => (
                "leads that the agent won in the window",
                of(&|lead| lead.closed_won_at.filter(|_| wins(lead)).map(fields::instant)),
            ),
            "deals_amount_sum" | "avg_deal_size" => (
                "amounts of the leads that the agent won in the window",
                of(&|lead| {
                    let amount = lead.deal_amount.filter(|amount| *amount > Decimal::ZERO);
                    amount
                        .filter(|_| wins(lead))
                        .map(|amount| json!(amount.normalize().to_string()))
                }),
            ),
            "median_response_seconds" => (
                "seconds from entry to first touch, of the touched leads that entered in the window",
                deciding(of(&|lead| lead.response().filter(|_| self.in_cohort(lead)).map(seconds))),
            ),
            "median_time_to_close_seconds" => (
                "seconds from entry to the win, of the leads that the agent won in the window",
                deciding(of(&|lead| lead.time_to_close().filter(|_| wins(lead)).map(seconds))),
            ),
            "hot_deals_count" => (
                "leads that the agent won in the org's hot hours",
                of(&|lead| {
                    let hot = TimeDelta::hours(i64::from(self.hot_hours));
                    let won = self.won(lead, |at| self.since(at, hot));
                    lead.closed_won_at.filter(|_| won).map(fields::instant)
                }),
            ),
            "active_leads" => (
                "open and active leads assigned to the agent",
                of(&|lead| {
                    let active = lead.state == "open" && lead.lifecycle == "active";
                    (self.owns(lead) && active).then_some(Value::Bool(true))
                }),
            ),
            "last_win_at" => (
                "wins of the agent; the latest counts",
                latest(of(&|lead| {
                    lead.closed_won_at.filter(|_| self.won(lead, |_| true)).map(fields::instant)
                })),
            ),
            _ => (
                "activity on leads assigned to the agent; the latest counts",
                latest(of(&|lead| {
                    lead.last_activity_at.filter(|_| self.owns(lead)).map(fields::instant)
                })),
            ),
        }
    }
}

impl Lead {
    fn response(&self) -> Option<TimeDelta> {
        self.first_touch_at.map(|at| at - self.entered_at).filter(|span| *span >= TimeDelta::zero())
    }

    fn time_to_close(&self) -> Option<TimeDelta> {
        self.closed_won_at.map(|at| at - self.entered_at).filter(|span| *span >= TimeDelta::zero())
    }

    fn counted(&self, contributes: Value) -> Counted {
        Counted {
            board_id: self.board_id,
            item_id: self.item_id,
            name: self.name.clone(),
            contributes,
            decides: false,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a span of microseconds below 142 years is exact")]
fn seconds(span: TimeDelta) -> Value {
    json!(span.num_microseconds().unwrap_or(i64::MAX) as f64 / 1e6)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

/// Sorted, with the middle marked.
fn deciding(mut leads: Vec<Counted>) -> Vec<Counted> {
    leads.sort_by(|a, b| number(&a.contributes).total_cmp(&number(&b.contributes)));
    let length = leads.len();
    for index in [length.saturating_sub(1) / 2, length / 2] {
        if let Some(lead) = leads.get_mut(index) {
            lead.decides = true;
        }
    }
    leads
}

/// Sorted, with the last marked.
fn latest(mut leads: Vec<Counted>) -> Vec<Counted> {
    leads.sort_by(|a, b| a.contributes.as_str().cmp(&b.contributes.as_str()));
    if let Some(lead) = leads.last_mut() {
        lead.decides = true;
    }
    leads
}

/// The figure that these leads make.
#[expect(clippy::cast_precision_loss, reason = "a count of leads is far below 2^53")]
pub(super) fn figure(metric: &str, leads: &[Counted], cohort: usize) -> Value {
    let rate =
        |part: usize| if cohort == 0 { Value::Null } else { json!(part as f64 / cohort as f64) };
    let amount = |lead: &Counted| lead.contributes.as_str()?.parse::<Decimal>().ok();
    let sum = || leads.iter().filter_map(amount).fold(Decimal::ZERO, add);
    match metric {
        "conversion_rate" => {
            rate(leads.iter().filter(|lead| lead.contributes == Value::Bool(true)).count())
        }
        "period_conversion_rate" => rate(leads.len()),
        "deals_amount_sum" => json!(sum().normalize().to_string()),
        "avg_deal_size" => json!(mean(sum(), leads.len()).map(|mean| mean.to_string())),
        "median_response_seconds" | "median_time_to_close_seconds" => {
            let middle: Vec<f64> =
                leads.iter().filter(|l| l.decides).map(|l| number(&l.contributes)).collect();
            if middle.is_empty() {
                return Value::Null;
            }
            json!(middle.iter().sum::<f64>() / middle.len() as f64)
        }
        "last_win_at" | "last_activity_at" => {
            leads.last().map_or(Value::Null, |lead| lead.contributes.clone())
        }
        _ => json!(leads.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_beyond_all_money_stops_at_the_largest_amount_as_the_stored_one_does() {
        let lead = Counted {
            board_id: 1,
            item_id: 1,
            name: None,
            contributes: json!(Decimal::MAX.to_string()),
            decides: false,
        };
        let leads = [lead.clone(), lead];
        assert_eq!(figure("deals_amount_sum", &leads, 0), json!(Decimal::MAX.to_string()));
        assert!(figure("avg_deal_size", &leads, 0).is_string());
    }
}
