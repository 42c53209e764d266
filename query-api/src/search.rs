//! `GET /v1/search`: agents and leads by name: exact, then by prefix, then by trigrams; of one kind of hit in
//! the order of the names, and of one name agents before leads, each by their ids.

use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder};

use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    db::Snapshot,
    params::{self, Params},
    read::{Context, Loaded, NotLoaded, Read},
    text,
    value::wire,
};

const LIMIT: i64 = 10;
const MOST: i64 = 20;
/// Leads with the text somewhere in their names that are put in order; there may be thousands more.
const PARTS: i64 = 200;

pub(crate) struct Search {
    q: String,
    agents: bool,
    leads: bool,
    limit: i64,
}

#[derive(Serialize)]
struct Answer {
    items: Vec<Hit>,
}

#[derive(Debug, FromRow, Serialize)]
struct Hit {
    r#type: String,
    name: String,
    /// How it was found: `exact`, `prefix` or `trigram`.
    r#match: String,
    #[serde(serialize_with = "wire::some_id", skip_serializing_if = "Option::is_none")]
    agent_id: Option<i64>,
    #[serde(serialize_with = "wire::some_id", skip_serializing_if = "Option::is_none")]
    board_id: Option<i64>,
    #[serde(serialize_with = "wire::some_id", skip_serializing_if = "Option::is_none")]
    item_id: Option<i64>,
}

impl Read for Search {
    const FAMILY: &'static str = "search";
    const SCOPE: Scope = Scope::Leads;
    const COST: u32 = 5;

    fn parse(params: &mut Params, _: &Caller) -> Self {
        let q = params.one("q", params::name).map(|q| text::search_form(&q));
        if q.is_none() {
            params.fault("q", "is needed: a name or its beginning");
        }
        let types = params.choices("types", &[("agent", 'a'), ("lead", 'l')]);
        Self {
            q: q.unwrap_or_default(),
            agents: types.is_empty() || types.contains(&'a'),
            leads: types.is_empty() || types.contains(&'l'),
            limit: params.number("limit", 1, MOST).unwrap_or(LIMIT),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let mut query = QueryBuilder::<Postgres>::new("with ");
        let org_id = context.org().id.as_str();
        let mut parts = Vec::new();
        if self.agents {
            self.push_agents(&mut query, org_id);
            parts.push("agents");
        }
        if self.leads {
            query.push(if self.agents { ", " } else { "" });
            self.push_leads(&mut query, org_id, &mut parts);
        }
        let parts: Vec<String> = parts.iter().map(|part| format!("select * from {part}")).collect();
        query.push(format_args!(
            " select type, name, match, agent_id, board_id, item_id from ({}) as hit
              order by array_position(array['exact', 'prefix', 'trigram'], match),
                  form using ~<~, type, agent_id, board_id, item_id limit ",
            parts.join(" union all ")
        ));
        query.push_bind(self.limit);
        let items: Vec<Hit> = query.build_query_as().fetch_all(from.connection()).await?;
        Ok(Loaded::json(&Answer { items }, Lives::Medium)?)
    }
}

impl Search {
    /// There are some hundred agents: their names are read through. A user who never had a lead is none.
    fn push_agents(&self, query: &mut QueryBuilder<Postgres>, org_id: &str) {
        let pattern = text::pattern(&self.q);
        query.push("agents as materialized (select 'agent' as type, name, search_form(name) as form, case when search_form(name) = ");
        query.push_bind(self.q.clone()).push(" then 'exact' when search_form(name) like ");
        query.push_bind(format!("{pattern}%")).push(" then 'prefix' else 'trigram' end as match,");
        query.push(" user_id as agent_id, null::bigint as board_id, null::bigint as item_id");
        query.push(" from monday_user where org_id = ").push_bind(org_id.to_owned());
        query.push(" and search_form(name) like ").push_bind(text::part(&self.q));
        query.push(
            " and exists (select from agent_metrics where agent_metrics.org_id = monday_user.org_id and agent_id = user_id))",
        );
    }

    /// Each way by its own index and no further than the answer. A part of a name is looked for by its
    /// trigrams, which find it wherever it stands, but only if the better hits leave room: of a common
    /// name they find thousands.
    fn push_leads(
        &self,
        query: &mut QueryBuilder<Postgres>,
        org_id: &str,
        parts: &mut Vec<&'static str>,
    ) {
        let pattern = text::pattern(&self.q);
        let start = |query: &mut QueryBuilder<Postgres>, how: &str| {
            query.push(format_args!(
                "{how} as materialized (
                 select 'lead' as type, name, search_form(name) as form, '{how}' as match, null::bigint as agent_id,
                     board_id, item_id from lead_fact where lifecycle <> 'deleted' and org_id = "
            ));
            query.push_bind(org_id.to_owned());
        };
        start(query, "exact");
        query.push(" and search_form(name) = ").push_bind(self.q.clone());
        query.push(" order by board_id, item_id limit ").push_bind(self.limit).push("), ");
        start(query, "prefix");
        query.push(" and search_form(name) like ").push_bind(format!("{pattern}%"));
        query.push(" and search_form(name) <> ").push_bind(self.q.clone());
        query.push(" order by search_form(name) using ~<~, board_id, item_id limit ");
        query.push_bind(self.limit).push(")");
        parts.extend(["exact", "prefix"]);
        if text::is_part(&self.q) {
            let better = |part| format!("(select count(*) from {part} where match <> 'trigram')");
            let better: Vec<String> = parts.iter().map(better).collect();
            query.push(", ");
            start(query, "trigram");
            query.push(" and search_form(name) like ").push_bind(format!("%{pattern}%"));
            query.push(" and search_form(name) not like ").push_bind(format!("{pattern}%"));
            query.push(format_args!(" and {} < ", better.join(" + "))).push_bind(self.limit);
            query.push(" limit ").push_bind(PARTS).push(")");
            parts.push("trigram");
        }
    }
}
