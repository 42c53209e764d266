//! The leads behind the figures of some agents, in four queries whatever their number, each on its
//! covering index.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use leadpulse_service::config::Org;
use rust_decimal::Decimal;
use sqlx::PgConnection;

use super::figures::{CohortLead, Leads, Win};

type At = DateTime<Utc>;
/// Agent, entered, first touch, won, industry.
type CohortRow = (i64, At, Option<At>, Option<At>, Option<String>);
/// Agent, entered, won, amount, industry.
type WinRow = (i64, At, At, Option<Decimal>, Option<String>);

pub(super) async fn leads_of(
    connection: &mut PgConnection,
    org: &Org,
    agents: &[i64],
    now: DateTime<Utc>,
) -> Result<HashMap<i64, Leads>, sqlx::Error> {
    let mut leads = HashMap::<i64, Leads>::new();
    let days = org.windows.iter().copied().max().unwrap_or(0);
    let longest =
        TimeDelta::days(i64::from(days)).max(TimeDelta::hours(i64::from(org.hot.window_hours)));
    let since = now - longest;
    load_cohorts(connection, &org.id, agents, since, &mut leads).await?;
    load_wins(connection, &org.id, agents, since, &mut leads).await?;
    load_assigned(connection, &org.id, agents, &mut leads).await?;
    load_won(connection, &org.id, agents, &mut leads).await?;
    Ok(leads)
}

async fn load_cohorts(
    connection: &mut PgConnection,
    org_id: &str,
    agents: &[i64],
    since: At,
    leads: &mut HashMap<i64, Leads>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<CohortRow> = sqlx::query_as(
        "select assigned_user_id, entered_at, first_touch_at, closed_won_at, industry from lead_fact
         where org_id = $1 and assigned_user_id = any ($2) and entered_at > $3 and lifecycle <> 'deleted'",
    )
    .bind(org_id)
    .bind(agents)
    .bind(since)
    .fetch_all(connection)
    .await?;
    for (agent, entered_at, first_touch_at, closed_won_at, industry) in rows {
        leads.entry(agent).or_default().cohort.push(CohortLead {
            entered_at: entered_at.timestamp_micros(),
            first_touch_at: first_touch_at.map(|at| at.timestamp_micros()),
            won: closed_won_at.is_some(),
            industry,
        });
    }
    Ok(())
}

async fn load_wins(
    connection: &mut PgConnection,
    org_id: &str,
    agents: &[i64],
    since: At,
    leads: &mut HashMap<i64, Leads>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<WinRow> = sqlx::query_as(
        "select closed_by_user_id, entered_at, closed_won_at, deal_amount, industry from lead_fact
         where org_id = $1 and closed_by_user_id = any ($2) and closed_won_at > $3 and lifecycle <> 'deleted'",
    )
    .bind(org_id)
    .bind(agents)
    .bind(since)
    .fetch_all(connection)
    .await?;
    for (agent, entered_at, closed_won_at, deal_amount, industry) in rows {
        leads.entry(agent).or_default().wins.push(Win {
            entered_at: entered_at.timestamp_micros(),
            closed_won_at: closed_won_at.timestamp_micros(),
            deal_amount,
            industry,
        });
    }
    Ok(())
}

async fn load_assigned(
    connection: &mut PgConnection,
    org_id: &str,
    agents: &[i64],
    leads: &mut HashMap<i64, Leads>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<(i64, i64, i64, Option<At>)> = sqlx::query_as(
        "select assigned_user_id, count(*),
             count(*) filter (where state = 'open' and lifecycle = 'active'), max(last_activity_at)
         from lead_fact
         where org_id = $1 and assigned_user_id = any ($2) and lifecycle <> 'deleted'
         group by assigned_user_id",
    )
    .bind(org_id)
    .bind(agents)
    .fetch_all(connection)
    .await?;
    for (agent, count, active, last_activity_at) in rows {
        let totals = &mut leads.entry(agent).or_default().totals;
        totals.leads += count;
        totals.active_leads = active;
        totals.last_activity_at = last_activity_at.map(|at| at.timestamp_micros());
    }
    Ok(())
}

async fn load_won(
    connection: &mut PgConnection,
    org_id: &str,
    agents: &[i64],
    leads: &mut HashMap<i64, Leads>,
) -> Result<(), sqlx::Error> {
    let rows: Vec<(i64, i64, Option<At>)> = sqlx::query_as(
        "select closed_by_user_id, count(*), max(closed_won_at) from lead_fact
         where org_id = $1 and closed_by_user_id = any ($2) and lifecycle <> 'deleted'
         group by closed_by_user_id",
    )
    .bind(org_id)
    .bind(agents)
    .fetch_all(connection)
    .await?;
    for (agent, count, last_win_at) in rows {
        let totals = &mut leads.entry(agent).or_default().totals;
        totals.leads += count;
        totals.last_win_at = last_win_at.map(|at| at.timestamp_micros());
    }
    Ok(())
}
