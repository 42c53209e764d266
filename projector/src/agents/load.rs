//! The leads behind the figures of some agents: two queries whatever their number, each one pass over one
//! index. What depends on a window comes as an array for each agent, which costs a third less than rows.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use leadpulse_service::config::Org;
use rust_decimal::Decimal;
use sqlx::{FromRow, PgConnection};

use super::figures::{CohortLead, Leads, Win};

type At = DateTime<Utc>;
/// Null where no lead is late enough to matter.
type Column<T> = Option<Vec<T>>;

/// The leads assigned to an agent: all of them counted, the columns of those that entered late enough.
#[derive(FromRow)]
struct Assigned {
    agent_id: i64,
    leads: i64,
    active_leads: i64,
    last_activity_at: Option<At>,
    entered_at: Column<At>,
    first_touch_at: Column<Option<At>>,
    won: Column<bool>,
    industry: Column<Option<String>>,
}

const ASSIGNED: &str = "
select assigned_user_id as agent_id, count(*) as leads,
    count(*) filter (where state = 'open' and lifecycle = 'active') as active_leads,
    max(last_activity_at) as last_activity_at,
    array_agg(entered_at) filter (where entered_at > $3) as entered_at,
    array_agg(first_touch_at) filter (where entered_at > $3) as first_touch_at,
    array_agg(closed_won_at is not null) filter (where entered_at > $3) as won,
    array_agg(industry) filter (where entered_at > $3) as industry
from lead_fact
where org_id = $1 and assigned_user_id = any ($2) and lifecycle <> 'deleted'
group by assigned_user_id";

/// The leads that an agent won: all of them counted, the columns of those that were won late enough.
#[derive(FromRow)]
struct Won {
    agent_id: i64,
    leads: i64,
    last_win_at: Option<At>,
    entered_at: Column<At>,
    closed_won_at: Column<At>,
    deal_amount: Column<Option<Decimal>>,
    industry: Column<Option<String>>,
}

const WON: &str = "
select closed_by_user_id as agent_id, count(*) as leads, max(closed_won_at) as last_win_at,
    array_agg(entered_at) filter (where closed_won_at > $3) as entered_at,
    array_agg(closed_won_at) filter (where closed_won_at > $3) as closed_won_at,
    array_agg(deal_amount) filter (where closed_won_at > $3) as deal_amount,
    array_agg(industry) filter (where closed_won_at > $3) as industry
from lead_fact
where org_id = $1 and closed_by_user_id = any ($2) and lifecycle <> 'deleted'
group by closed_by_user_id";

pub(super) async fn leads_of(
    connection: &mut PgConnection,
    org: &Org,
    agents: &[i64],
    now: At,
) -> Result<HashMap<i64, Leads>, sqlx::Error> {
    let days = org.windows.iter().copied().max().unwrap_or(0);
    let longest =
        TimeDelta::days(i64::from(days)).max(TimeDelta::hours(i64::from(org.hot.window_hours)));
    let since = now - longest;
    let assigned: Vec<Assigned> = sqlx::query_as(ASSIGNED)
        .bind(&org.id)
        .bind(agents)
        .bind(since)
        .fetch_all(&mut *connection)
        .await?;
    let won: Vec<Won> =
        sqlx::query_as(WON).bind(&org.id).bind(agents).bind(since).fetch_all(connection).await?;
    let mut leads = HashMap::<i64, Leads>::new();
    for row in assigned {
        let of_agent = leads.entry(row.agent_id).or_default();
        of_agent.totals.leads += row.leads;
        of_agent.totals.active_leads = row.active_leads;
        of_agent.totals.last_activity_at = row.last_activity_at.map(|at| at.timestamp_micros());
        of_agent.cohort = row.cohort();
    }
    for row in won {
        let of_agent = leads.entry(row.agent_id).or_default();
        of_agent.totals.leads += row.leads;
        of_agent.totals.last_win_at = row.last_win_at.map(|at| at.timestamp_micros());
        of_agent.wins = row.wins();
    }
    Ok(leads)
}

impl Assigned {
    /// The columns are of one length, and in one order: one aggregation made them.
    fn cohort(self) -> Vec<CohortLead> {
        let touched = self.first_touch_at.into_iter().flatten();
        let rest = touched.zip(self.won.into_iter().flatten());
        let rest = rest.zip(self.industry.into_iter().flatten());
        let leads = self.entered_at.into_iter().flatten().zip(rest);
        leads
            .map(|(entered_at, ((first_touch_at, won), industry))| CohortLead {
                entered_at: entered_at.timestamp_micros(),
                first_touch_at: first_touch_at.map(|at| at.timestamp_micros()),
                won,
                industry,
            })
            .collect()
    }
}

impl Won {
    fn wins(self) -> Vec<Win> {
        let closed = self.closed_won_at.into_iter().flatten();
        let rest = closed.zip(self.deal_amount.into_iter().flatten());
        let rest = rest.zip(self.industry.into_iter().flatten());
        let wins = self.entered_at.into_iter().flatten().zip(rest);
        wins.map(|(entered_at, ((closed_won_at, deal_amount), industry))| Win {
            entered_at: entered_at.timestamp_micros(),
            closed_won_at: closed_won_at.timestamp_micros(),
            deal_amount,
            industry,
        })
        .collect()
    }
}
