//! Whom to compute again: agents that are marked, and those whose instant has come.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

use super::lead::LeadId;

/// Marks taken by one transaction: all there are, mostly.
const MARKS: i64 = 50_000;
/// Agents whose instant has come, taken by one transaction: at a full hour it may come for all.
const EXPIRED: i64 = 2000;

/// What may have changed of an agent since its figures were computed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Changed {
    /// Anything.
    pub(super) whole: bool,
    /// These of its leads; with none it was the clock.
    pub(super) leads: BTreeSet<LeadId>,
}

/// Agents to compute, by org.
pub(super) type Agents = BTreeMap<String, BTreeMap<i64, Changed>>;

#[derive(FromRow)]
struct Mark {
    org_id: String,
    agent_id: i64,
    board_id: Option<i64>,
    item_id: Option<i64>,
}

pub(super) async fn take(connection: &mut PgConnection) -> Result<Agents, sqlx::Error> {
    let marks: Vec<Mark> = sqlx::query_as(
        "delete from agent_dirty where id in (select id from agent_dirty order by id limit $1)
         returning org_id, agent_id, board_id, item_id",
    )
    .bind(MARKS)
    .fetch_all(connection)
    .await?;
    let mut agents = Agents::new();
    for mark in marks {
        let changed = agents.entry(mark.org_id).or_default().entry(mark.agent_id).or_default();
        match mark.board_id.zip(mark.item_id) {
            Some(lead) => _ = changed.leads.insert(lead),
            None => changed.whole = true,
        }
    }
    Ok(agents)
}

/// A window's first instant is the row's last one: at `valid_until` itself the row is wrong.
pub(super) async fn add_expired(
    connection: &mut PgConnection,
    agents: &mut Agents,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let expired: Vec<(String, i64)> = sqlx::query_as(
        "select org_id, agent_id from agent_metrics where valid_until <= $1 order by valid_until limit $2",
    )
    .bind(now)
    .bind(EXPIRED)
    .fetch_all(connection)
    .await?;
    for (org_id, agent_id) in expired {
        agents.entry(org_id).or_default().entry(agent_id).or_default();
    }
    Ok(())
}
