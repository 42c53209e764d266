//! `GET /v1/search`: agents and leads by name: exact, then by prefix, then by trigrams.

use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder};

use crate::{
    auth::{Caller, Scope},
    db::Snapshot,
    params::{self, Params},
    read::{Context, Lives, Loaded, NotLoaded, Read},
    text,
    value::wire,
};

const LIMIT: i64 = 10;
const MOST: i64 = 20;
/// Shorter texts have no trigram of their own, and would scan.
const TRIGRAM: usize = 3;

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
        let q = params.one("q", params::text).map(|q| text::search_form(&q));
        if q.as_ref().is_none_or(String::is_empty) {
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
        let mut query = QueryBuilder::<Postgres>::new(
            "select type, name, match, agent_id, board_id, item_id from (",
        );
        let org_id = context.org().id.as_str();
        if self.agents {
            self.push_agents(&mut query, org_id);
        }
        if self.leads {
            if self.agents {
                query.push(" union all ");
            }
            self.push_leads(&mut query, org_id);
        }
        query.push(
            ") as hit order by type, array_position(array['exact', 'prefix', 'trigram'], match),
                 form, agent_id, board_id, item_id limit ",
        );
        query.push_bind(self.limit);
        let items: Vec<Hit> = query.build_query_as().fetch_all(from.connection()).await?;
        Ok(Loaded::json(&Answer { items }, Lives::WithData)?)
    }
}

impl Search {
    /// There are some hundred agents: their names are read through.
    fn push_agents(&self, query: &mut QueryBuilder<Postgres>, org_id: &str) {
        let pattern = text::pattern(&self.q);
        query.push("select 'agent' as type, name, search_form(name) as form, case when search_form(name) = ");
        query.push_bind(self.q.clone()).push(" then 'exact' when search_form(name) like ");
        query.push_bind(format!("{pattern}%")).push(" then 'prefix' else 'trigram' end as match,");
        query.push(" user_id as agent_id, null::bigint as board_id, null::bigint as item_id");
        query.push(" from monday_user where org_id = ").push_bind(org_id.to_owned());
        let part = if self.q.chars().count() < TRIGRAM { "" } else { "%" };
        query.push(" and search_form(name) like ").push_bind(format!("{part}{pattern}%"));
    }

    /// Each way by its own index and no further than the answer: a part of a name is looked for by its
    /// trigrams, which find it wherever it stands.
    fn push_leads(&self, query: &mut QueryBuilder<Postgres>, org_id: &str) {
        let pattern = text::pattern(&self.q);
        let start = |query: &mut QueryBuilder<Postgres>, how: &str| {
            query.push(format_args!(
                "select 'lead' as type, name, search_form(name) as form, '{how}' as match, null::bigint as agent_id,
                     board_id, item_id from lead_fact where lifecycle <> 'deleted' and org_id = "
            ));
            query.push_bind(org_id.to_owned());
        };
        query.push("select * from (");
        start(query, "exact");
        query.push(" and search_form(name) = ").push_bind(self.q.clone());
        query.push(" limit ").push_bind(self.limit).push(") as exact union all select * from (");
        start(query, "prefix");
        query.push(" and search_form(name) like ").push_bind(format!("{pattern}%"));
        query.push(" and search_form(name) <> ").push_bind(self.q.clone());
        query.push(" order by search_form(name) using ~<~ limit ").push_bind(self.limit);
        query.push(") as prefix");
        if self.q.chars().count() >= TRIGRAM {
            query.push(" union all select * from (");
            start(query, "trigram");
            query.push(" and search_form(name) like ").push_bind(format!("%{pattern}%"));
            query.push(" and search_form(name) not like ").push_bind(format!("{pattern}%"));
            query.push(" limit ").push_bind(self.limit).push(") as part");
        }
    }
}
