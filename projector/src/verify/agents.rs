//! AgentMetrics: each row computed again, from the folded leads, for the instant at which it was computed.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::Result;
use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};

use super::{Difference, Ground, Verdict};
use crate::{
    agents::{
        figures::{Figures, figures},
        lead::{Industries, Lead, Totals},
    },
    event::{LeadKey, Lifecycle},
    fold::{LeadRow, State},
    refold::Pass,
};

#[derive(Debug, FromRow)]
struct Row {
    org_id: String,
    agent_id: i64,
    window_days: i32,
    assigned_count: i64,
    touched_count: i64,
    cohort_won_count: i64,
    conversion_rate: Option<f64>,
    closed_won_count: i64,
    period_conversion_rate: Option<f64>,
    deals_amount_sum: Decimal,
    deals_amount_count: i64,
    avg_deal_size: Option<Decimal>,
    median_response_seconds: Option<f64>,
    median_time_to_close_seconds: Option<f64>,
    time_to_close_count: i64,
    hot_deals_count: i64,
    is_hot: bool,
    last_win_at: Option<DateTime<Utc>>,
    last_activity_at: Option<DateTime<Utc>>,
    active_leads: i64,
    industries: Value,
    computed_at: DateTime<Utc>,
    valid_until: Option<DateTime<Utc>>,
}

type Agent = (String, i64);

/// The rows of the snapshot, and what the folded leads say of their agents.
#[derive(Debug, Default)]
pub(super) struct Agents {
    rows: Vec<Row>,
    /// Marked agents wait for the worker: their rows may be of before.
    pending: HashSet<Agent>,
    /// Leads that came and closed before this are in no window of any row.
    since: i64,
    leads: HashMap<Agent, Leads>,
    industries: Industries,
}

/// All leads of an agent, counted, and those that may be in a window of its rows.
#[derive(Debug, Default)]
struct Leads {
    totals: Totals,
    late: Vec<Lead>,
}

impl Agents {
    pub(super) async fn load(ground: &Ground<'_>, snapshot: &mut PgConnection) -> Result<Self> {
        let org = ground.scope.org.as_deref();
        let rows: Vec<Row> = sqlx::query_as(
            "select * from agent_metrics where ($1::text is null or org_id = $1)
             order by org_id, agent_id, window_days",
        )
        .bind(org)
        .fetch_all(&mut *snapshot)
        .await?;
        let pending: Vec<Agent> =
            sqlx::query_as("select distinct org_id, agent_id from agent_dirty")
                .fetch_all(snapshot)
                .await?;
        let days = ground.tools.config.orgs.iter().flat_map(|org| org.windows.iter()).max();
        let hours = ground.tools.config.orgs.iter().map(|org| org.hot.window_hours).max();
        let longest = TimeDelta::days(i64::from(days.copied().unwrap_or(0)))
            .max(TimeDelta::hours(i64::from(hours.unwrap_or(0))));
        let oldest = rows.iter().map(|row| row.computed_at).min().unwrap_or_else(Utc::now);
        let since = (oldest - longest).timestamp_micros();
        Ok(Self { rows, pending: pending.into_iter().collect(), since, ..Self::default() })
    }

    pub(super) fn add(&mut self, ground: &Ground<'_>, pass: &Pass) {
        for (key, state) in &pass.leads {
            let board = ground.tools.mapping.board(&key.org_id, key.board_id);
            let Some(row) = board.and_then(|board| state.row(board)) else { continue };
            if row.lifecycle == Lifecycle::Deleted {
                continue;
            }
            let owner = row.assigned_user_id;
            let winner = row.closed_by_user_id.filter(|winner| Some(*winner) != owner);
            for agent in [owner, winner].into_iter().flatten() {
                self.add_lead(key, &row, agent);
            }
        }
    }

    fn add_lead(&mut self, key: &LeadKey, row: &LeadRow, agent: i64) {
        let micros = |at: Option<DateTime<Utc>>| at.map(|at| at.timestamp_micros()).into();
        let lead = Lead {
            id: (key.board_id, key.item_id),
            entered_at: row.entered_at.timestamp_micros(),
            first_touch_at: micros(row.first_touch_at),
            closed_won_at: micros(row.closed_won_at),
            last_activity_at: micros(row.last_activity_at),
            deal_amount: row.deal_amount.unwrap_or_default(),
            industry: self.industries.number(row.industry.as_deref()),
            assigned: row.assigned_user_id == Some(agent),
            won_by: row.closed_by_user_id == Some(agent),
            active: row.state == State::Open && row.lifecycle == Lifecycle::Active,
        };
        let leads = self.leads.entry((key.org_id.clone(), agent)).or_default();
        leads.totals.add(&lead);
        if lead.is_after(self.since) {
            leads.late.push(lead);
        }
    }

    pub(super) fn compare(&self, ground: &Ground<'_>, verdict: &mut Verdict) {
        let mut known = BTreeSet::<(&str, i64, i64)>::new();
        for row in &self.rows {
            known.insert((&row.org_id, row.agent_id, row.window_days.into()));
            let agent = (row.org_id.clone(), row.agent_id);
            let Some(org) = ground.tools.config.org(&row.org_id) else { continue };
            if self.pending.contains(&agent) {
                continue;
            }
            verdict.agents += 1;
            let days = u32::try_from(row.window_days).unwrap_or(0);
            match self.leads.get(&agent) {
                Some(leads) if org.windows.contains(&days) => {
                    let at = row.computed_at.timestamp_micros();
                    let figures = figures(&leads.late, &self.industries, days, org.hot, at);
                    compare_row(row, &leads.totals, &figures, verdict);
                }
                _ => note(row, "row", "there".into(), "nothing".into(), verdict),
            }
        }
        for (org_id, agent_id) in self.leads.keys() {
            if self.pending.contains(&(org_id.clone(), *agent_id)) {
                verdict.pending_agents += 1;
                continue;
            }
            let windows = ground.tools.config.org(org_id).map_or(&[][..], |org| &org.windows);
            for days in windows {
                if !known.contains(&(org_id.as_str(), *agent_id, i64::from(*days))) {
                    verdict.note(Difference {
                        org_id: org_id.clone(),
                        ..Difference::whole("agent", format!("{agent_id}/{days}d"), "there".into())
                    });
                }
            }
        }
    }
}

fn compare_row(row: &Row, totals: &Totals, figures: &Figures, verdict: &mut Verdict) {
    macro_rules! field {
        ($field:ident, $meant:expr) => {
            let meant = $meant;
            if row.$field != meant {
                let (table, stream) = (format!("{:?}", row.$field), format!("{meant:?}"));
                note(row, stringify!($field), table, stream, verdict);
            }
        };
    }
    macro_rules! figures {
        ($($field:ident),*) => { $(field!($field, figures.$field.clone());)* };
    }
    figures!(
        assigned_count,
        touched_count,
        cohort_won_count,
        conversion_rate,
        closed_won_count,
        period_conversion_rate,
        deals_amount_sum,
        deals_amount_count,
        avg_deal_size,
        median_response_seconds,
        median_time_to_close_seconds,
        time_to_close_count,
        hot_deals_count,
        is_hot,
        industries
    );
    let at = |micros: Option<i64>| micros.and_then(leadpulse_nats::instant::from_micros);
    field!(last_win_at, at(totals.last_win_at));
    field!(last_activity_at, at(totals.last_activity_at));
    field!(active_leads, totals.active_leads);
    field!(valid_until, at(figures.valid_until));
}

fn note(row: &Row, field: &'static str, table: String, stream: String, verdict: &mut Verdict) {
    verdict.note(Difference {
        what: "agent",
        org_id: row.org_id.clone(),
        key: format!("{}/{}d", row.agent_id, row.window_days),
        field,
        table: Some(table),
        stream: Some(stream),
        lead: None,
        events: Vec::new(),
        more_events: 0,
    });
}
