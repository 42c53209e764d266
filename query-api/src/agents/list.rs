//! `GET /v1/agents` and `GET /v1/agents/{agent_id}`: agents with all of the org's windows.

use serde::Serialize;
use sqlx::{Postgres, QueryBuilder};

use super::metrics::{self, AgentMetrics};
use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    cursor::{self, Position},
    db::Snapshot,
    params::{self, Params},
    problem::Problem,
    read::{Context, Loaded, NotLoaded, Read},
    text,
    value::{instant, wire},
};

const LIMIT: i64 = 50;
const MOST: i64 = 200;

/// One agent.
pub(crate) struct Agent {
    agent_id: Option<i64>,
}

/// A page of agents, by id.
pub(crate) struct Agents {
    q: Option<String>,
    cursor: Option<String>,
    limit: i64,
}

#[derive(Serialize)]
struct Whole {
    #[serde(serialize_with = "wire::id")]
    agent_id: i64,
    agent_name: String,
    as_of: String,
    /// The shortest first.
    windows: Vec<AgentMetrics>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Whole>,
    next_cursor: Option<String>,
}

impl Read for Agent {
    const FAMILY: &'static str = "agent";
    const SCOPE: Scope = Scope::Metrics;

    fn parse(params: &mut Params, _: &Caller) -> Self {
        Self { agent_id: params.one("agent_id", params::id) }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let mut query = QueryBuilder::<Postgres>::new(metrics::SELECT);
        query.push_bind(context.org().id.as_str());
        query.push(" and agent_id = ").push_bind(self.agent_id);
        query.push(" order by window_days");
        let mut rows: Vec<AgentMetrics> =
            query.build_query_as().fetch_all(from.connection()).await?;
        metrics::settle(&mut rows, from, context.patient)?;
        let agent = group(rows, from).pop().ok_or(Problem::NotFound)?;
        Ok(Loaded::json(&agent, Lives::Moment)?)
    }
}

impl Read for Agents {
    const FAMILY: &'static str = "agents";
    const SCOPE: Scope = Scope::Metrics;
    const COST: u32 = 5;

    fn parse(params: &mut Params, _: &Caller) -> Self {
        Self {
            q: params.one("q", params::name),
            cursor: params.one("cursor", params::cursor),
            limit: params.number("limit", 1, MOST).unwrap_or(LIMIT),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let (app, org) = (context.app, context.org());
        let binding = cursor::binding(&org.id, &format!("agents?{}", context.filters));
        let after = match &self.cursor {
            Some(text) => app.cursors.read(&app.pool, &binding, text).await?.0[0],
            None => i64::MIN,
        };
        let mut query = QueryBuilder::<Postgres>::new(metrics::SELECT);
        query.push_bind(org.id.as_str());
        query.push(
            " and agent_id in (select distinct agent_id from agent_metrics as listed
                 left join monday_user as user_listed
                     on user_listed.org_id = listed.org_id and user_listed.user_id = agent_id
                 where listed.org_id = ",
        );
        query.push_bind(org.id.as_str()).push(" and agent_id > ").push_bind(after);
        if let Some(q) = &self.q {
            query.push(" and search_form(coalesce(user_listed.name, agent_id::text)) like ");
            query.push_bind(text::part(q));
        }
        query.push(" order by agent_id limit ").push_bind(self.limit + 1);
        query.push(") order by agent_id, window_days");
        let mut rows: Vec<AgentMetrics> =
            query.build_query_as().fetch_all(from.connection()).await?;
        metrics::settle(&mut rows, from, context.patient)?;
        let mut items = group(rows, from);
        let next_cursor = match cursor::cut(&mut items, self.limit) {
            Some(last) => {
                let position = Position([last.agent_id, 0, 0]);
                Some(app.cursors.write(&app.pool, &binding, position).await?)
            }
            None => None,
        };
        Ok(Loaded::json(&Page { items, next_cursor }, Lives::Moment)?)
    }
}

/// Rows in the order of their agents, agent by agent.
fn group(rows: Vec<AgentMetrics>, from: &Snapshot) -> Vec<Whole> {
    let mut agents = Vec::<Whole>::new();
    for row in rows {
        match agents.last_mut() {
            Some(agent) if agent.agent_id == row.agent_id => agent.windows.push(row),
            _ => agents.push(Whole {
                agent_id: row.agent_id,
                agent_name: row.agent_name.clone(),
                as_of: instant(from.at),
                windows: vec![row],
            }),
        }
    }
    agents
}
