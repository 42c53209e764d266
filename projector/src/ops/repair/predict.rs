//! What AgentMetrics would be with the changed leads: computed by the worker's own code on tables of
//! this session alone, which stand before the real ones by their names.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::{
    AgentChange, Ground,
    change::differences,
    fold::{Folded, Touched},
};
use crate::{agents, event::LeadKey, store};

/// Agents computed at once.
const AT_ONCE: usize = 200;

/// One agent's row over one window: its key, and what it is and would be.
type Compared = (i64, i32, Option<Value>, Option<Value>);

impl Ground<'_> {
    pub(super) async fn predict(
        &self,
        folded: &Folded,
        now: DateTime<Utc>,
    ) -> Result<Vec<AgentChange>> {
        let mut agents = BTreeMap::<&str, BTreeSet<i64>>::new();
        for (key, lead) in &folded.leads {
            agents.entry(&key.org_id).or_default().extend(lead.agents());
        }
        let mut changes = Vec::new();
        for (org_id, ids) in agents {
            let Some(org) = self.tools.config.org(org_id) else { continue };
            let leads: Vec<(&LeadKey, &Touched)> =
                folded.leads.iter().filter(|(key, _)| key.org_id == org_id).collect();
            let ids: Vec<i64> = ids.into_iter().collect();
            for ids in ids.chunks(AT_ONCE) {
                let mut tx = store::begin(&self.tools.pool).await?;
                imagine(&mut tx, org_id, ids, &leads).await?;
                agents::recompute(&mut tx, org, ids, now).await?;
                changes.extend(compare(&mut tx, org_id, ids).await?);
                tx.rollback().await?;
            }
        }
        Ok(changes)
    }
}

/// Tables that hold what these agents' figures are made of, after the change.
async fn imagine(
    connection: &mut PgConnection,
    org_id: &str,
    agents: &[i64],
    leads: &[(&LeadKey, &Touched)],
) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(
        "create temp table lead_fact (like public.lead_fact including all excluding generated) on commit drop;
         create temp table agent_metrics (like public.agent_metrics including all) on commit drop",
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into pg_temp.lead_fact select * from public.lead_fact
         where org_id = $1 and (assigned_user_id = any ($2) or closed_by_user_id = any ($2))",
    )
    .bind(org_id)
    .bind(agents)
    .execute(&mut *connection)
    .await?;
    // Leads that stay as they are may be newer in the table than here.
    let rows: Vec<_> = leads
        .iter()
        .filter(|(key, lead)| lead.change(key).is_some())
        .filter_map(|(key, lead)| Some((*key, lead.row.as_ref()?, lead.state.encode())))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    store::upsert_leads(connection, &rows).await
}

async fn compare(
    connection: &mut PgConnection,
    org_id: &str,
    agents: &[i64],
) -> Result<Vec<AgentChange>, sqlx::Error> {
    // When a row was computed and until when it holds is no figure.
    let rows: Vec<Compared> = sqlx::query_as(
        "with was as (select agent_id, window_days, to_jsonb(m) - array['computed_at', 'valid_until'] as row
                      from public.agent_metrics m where org_id = $1 and agent_id = any ($2)),
              will as (select agent_id, window_days, to_jsonb(m) - array['computed_at', 'valid_until'] as row
                       from pg_temp.agent_metrics m where org_id = $1)
         select agent_id, window_days, was.row, will.row from was full join will using (agent_id, window_days)
         where was.row is distinct from will.row order by 1, 2",
    )
    .bind(org_id)
    .bind(agents)
    .fetch_all(connection)
    .await?;
    let fields = |row: Option<Value>| match row {
        Some(Value::Object(fields)) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    };
    Ok(rows
        .into_iter()
        .map(|(agent_id, window_days, was, will)| AgentChange {
            org_id: org_id.to_owned(),
            agent_id,
            window_days,
            fields: differences(&fields(was), &fields(will)),
        })
        .collect())
}
