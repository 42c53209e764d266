//! The leads behind the figures of some agents: all of them by two queries whatever the number of agents, each
//! one pass over one index, or by their keys those that changed. All leads of an agent come as arrays, which
//! cost a third less than rows.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{FromRow, PgConnection};

use super::lead::{Industries, Lead, LeadId};

type At = DateTime<Utc>;

/// Some leads of one agent. The columns are of one length and in one order: one aggregation made them.
#[derive(FromRow)]
struct Columns {
    agent_id: i64,
    board_id: Vec<i64>,
    item_id: Vec<i64>,
    entered_at: Vec<At>,
    first_touch_at: Vec<Option<At>>,
    closed_won_at: Vec<Option<At>>,
    last_activity_at: Vec<Option<At>>,
    deal_amount: Vec<Option<Decimal>>,
    industry: Vec<Option<String>>,
    assigned: Vec<bool>,
    won_by: Vec<bool>,
    active: Vec<bool>,
}

macro_rules! columns {
    ($agent:literal, $more:literal) => {
        concat!(
            "select ",
            $agent,
            " as agent_id, array_agg(board_id) as board_id, array_agg(item_id) as item_id,
    array_agg(entered_at) as entered_at, array_agg(first_touch_at) as first_touch_at,
    array_agg(closed_won_at) as closed_won_at, array_agg(last_activity_at) as last_activity_at,
    array_agg(deal_amount) as deal_amount, array_agg(industry) as industry,
    array_agg(assigned_user_id is not distinct from ",
            $agent,
            ") as assigned,
    array_agg(closed_by_user_id is not distinct from ",
            $agent,
            ") as won_by,
    array_agg(state = 'open' and lifecycle = 'active') as active
from lead_fact
where org_id = $1 and ",
            $agent,
            " = any ($2) and lifecycle <> 'deleted'",
            $more,
            " group by ",
            $agent
        )
    };
}

pub const ASSIGNED: &str = columns!("assigned_user_id", "");
/// Those that the agent won and does not have: the others are among the assigned ones.
pub const WON: &str =
    columns!("closed_by_user_id", " and closed_by_user_id is distinct from assigned_user_id");

/// All leads of these agents, in the order of their keys. An agent without any is not among them.
pub(super) async fn leads_of(
    connection: &mut PgConnection,
    org_id: &str,
    agents: &[i64],
    industries: &mut Industries,
) -> Result<HashMap<i64, Vec<Lead>>, sqlx::Error> {
    let mut leads = HashMap::<i64, Vec<Lead>>::new();
    for query in [ASSIGNED, WON] {
        let found: Vec<Columns> =
            sqlx::query_as(query).bind(org_id).bind(agents).fetch_all(&mut *connection).await?;
        for columns in found {
            leads.entry(columns.agent_id).or_default().extend(columns.leads(industries));
        }
    }
    for of_agent in leads.values_mut() {
        of_agent.sort_unstable_by_key(|lead| lead.id);
        of_agent.shrink_to_fit();
    }
    Ok(leads)
}

impl Columns {
    fn leads(self, industries: &mut Industries) -> impl Iterator<Item = Lead> {
        let ids = self.board_id.into_iter().zip(self.item_id);
        let times = self.entered_at.into_iter().zip(self.first_touch_at);
        let later = self.closed_won_at.into_iter().zip(self.last_activity_at);
        let deals = self.deal_amount.into_iter().zip(self.industry);
        let flags = self.assigned.into_iter().zip(self.won_by).zip(self.active);
        let rows = ids.zip(times).zip(later).zip(deals).zip(flags);
        rows.map(|((((id, times), later), (deal_amount, industry)), flags)| Lead {
            id,
            entered_at: times.0.timestamp_micros(),
            first_touch_at: times.1.map(|at| at.timestamp_micros()).into(),
            closed_won_at: later.0.map(|at| at.timestamp_micros()).into(),
            last_activity_at: later.1.map(|at| at.timestamp_micros()).into(),
            deal_amount: deal_amount.unwrap_or_default(),
            industry: industries.number(industry.as_deref()),
            assigned: flags.0.0,
            won_by: flags.0.1,
            active: flags.1,
        })
    }
}

/// A lead as its row is now.
#[derive(FromRow)]
pub(super) struct Row {
    board_id: i64,
    item_id: i64,
    assigned_user_id: Option<i64>,
    closed_by_user_id: Option<i64>,
    entered_at: At,
    first_touch_at: Option<At>,
    closed_won_at: Option<At>,
    last_activity_at: Option<At>,
    deal_amount: Option<Decimal>,
    industry: Option<String>,
    active: bool,
}

/// What is not deleted of these leads.
pub(super) async fn leads_by_key(
    connection: &mut PgConnection,
    org_id: &str,
    keys: &BTreeSet<LeadId>,
) -> Result<HashMap<LeadId, Row>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<Row> = sqlx::query_as(BY_KEY)
        .bind(org_id)
        .bind(keys.iter().map(|key| key.0).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.1).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(|row| ((row.board_id, row.item_id), row)).collect())
}

/// The changed leads of agents whose other leads are known.
pub const BY_KEY: &str = "
select board_id, item_id, assigned_user_id, closed_by_user_id, entered_at, first_touch_at,
    closed_won_at, last_activity_at, deal_amount, industry,
    state = 'open' and lifecycle = 'active' as active
from unnest($2::bigint[], $3::bigint[]) as wanted (board_id, item_id)
join lead_fact using (board_id, item_id)
where org_id = $1 and lifecycle <> 'deleted'";

impl Row {
    /// What the lead is to this agent, if it is anything.
    pub(super) fn of(&self, agent: i64, industries: &mut Industries) -> Option<Lead> {
        let assigned = self.assigned_user_id == Some(agent);
        let won_by = self.closed_by_user_id == Some(agent);
        (assigned || won_by).then(|| Lead {
            id: (self.board_id, self.item_id),
            entered_at: self.entered_at.timestamp_micros(),
            first_touch_at: self.first_touch_at.map(|at| at.timestamp_micros()).into(),
            closed_won_at: self.closed_won_at.map(|at| at.timestamp_micros()).into(),
            last_activity_at: self.last_activity_at.map(|at| at.timestamp_micros()).into(),
            deal_amount: self.deal_amount.unwrap_or_default(),
            industry: industries.number(self.industry.as_deref()),
            assigned,
            won_by,
            active: self.active,
        })
    }
}
