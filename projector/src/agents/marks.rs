//! Whom to compute again: agents that are marked, and those whose instant has come.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::lead::LeadId;

/// Marks that one transaction looks at: all there are, mostly.
const MARKS: i64 = 50_000;
/// Agents that are marked as a whole, taken by one transaction. To read one costs as much as many marks of
/// leads, and after a start all are to be read: what is announced meanwhile must not wait for the last.
const WHOLE: i64 = 100;
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

/// Agents of which some leads changed come all and first, those that are marked as a whole in portions.
pub(super) async fn take(connection: &mut PgConnection) -> Result<Agents, sqlx::Error> {
    let mut agents = Agents::new();
    let of_leads: Vec<(String, i64, i64, i64)> =
        sqlx::query_as(TAKE_LEADS).bind(MARKS).fetch_all(&mut *connection).await?;
    for (org_id, agent_id, board_id, item_id) in of_leads {
        let changed = agents.entry(org_id).or_default().entry(agent_id).or_default();
        changed.leads.insert((board_id, item_id));
    }
    // An agent that is read now need not be read again for its other mark.
    let (orgs, ids): (Vec<_>, Vec<_>) = agents
        .iter()
        .flat_map(|(org_id, of_org)| of_org.keys().map(|id| (org_id.clone(), *id)))
        .unzip();
    let whole: Vec<(String, i64)> = sqlx::query_as(TAKE_WHOLE)
        .bind(MARKS)
        .bind(WHOLE)
        .bind(orgs)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    for (org_id, agent_id) in whole {
        agents.entry(org_id).or_default().entry(agent_id).or_default().whole = true;
    }
    Ok(agents)
}

const TAKE_LEADS: &str = "
delete from agent_dirty
where id in (select id from agent_dirty where board_id is not null order by id limit $1)
returning org_id, agent_id, board_id, item_id";

/// All marks as a whole of some agents, the longest marked, and of those that are named. An agent may have many:
/// lanes that catch up leave one with each commit.
pub const TAKE_WHOLE: &str = "
with marked as (
    select id, org_id, agent_id from agent_dirty where board_id is null order by id limit $1
), taken as (
    (select org_id, agent_id from marked group by org_id, agent_id order by min(id) limit $2)
    union
    select * from unnest($3::text[], $4::bigint[])
)
delete from agent_dirty where id in (select id from marked join taken using (org_id, agent_id))
returning org_id, agent_id";

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
