//! `GET /v1/leads`, `GET /v1/leads/{board_id}/{item_id}` and its timeline.

mod fact;
mod filter;
mod timeline;

use serde::Serialize;
use sqlx::{PgExecutor, Postgres, QueryBuilder, Row, postgres::PgRow};

use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    cursor::{self, Position},
    db::Snapshot,
    params::{self, Params},
    problem::Problem,
    read::{Context, Loaded, NotLoaded, Read},
};
pub(crate) use fact::Fact;
use fact::SELECT;
use filter::{DateField, Filter};
pub(crate) use timeline::Timeline;

const LIMIT: i64 = 50;
const MOST: i64 = 200;

/// One lead.
pub(crate) struct Lead {
    board_id: Option<i64>,
    item_id: Option<i64>,
}

impl Read for Lead {
    const FAMILY: &'static str = "lead";
    const SCOPE: Scope = Scope::Leads;

    fn parse(params: &mut Params, _: &Caller) -> Self {
        Self {
            board_id: params.one("board_id", params::id),
            item_id: params.one("item_id", params::id),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        query.push(" where lead_fact.org_id = ").push_bind(context.org().id.as_str());
        query.push(" and board_id = ").push_bind(self.board_id);
        query.push(" and item_id = ").push_bind(self.item_id);
        let fact: Option<Fact> = query.build_query_as().fetch_optional(from.connection()).await?;
        let fact = fact.ok_or(Problem::NotFound)?;
        Ok(Loaded::json(&fact, Lives::Short)?)
    }
}

/// Which leads, in which order.
pub(crate) struct Selection {
    filter: Filter,
    descending: bool,
}

/// A page of leads.
pub(crate) struct Leads {
    selection: Selection,
    limit: i64,
    cursor: Option<String>,
    count: Count,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Count {
    None,
    Estimated,
    Exact,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Fact>,
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<i64>,
}

impl Read for Leads {
    const FAMILY: &'static str = "leads";
    const SCOPE: Scope = Scope::Leads;

    /// To count exactly is to go through all that is counted.
    fn cost(&self) -> u32 {
        if self.count == Count::Exact { 20 } else { Self::COST }
    }

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        Self {
            selection: Selection::parse(params, caller),
            limit: params.number("limit", 1, MOST).unwrap_or(LIMIT),
            cursor: params.one("cursor", params::cursor),
            count: params.choice(
                "count",
                &[("none", Count::None), ("estimated", Count::Estimated), ("exact", Count::Exact)],
                Count::None,
            ),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let org_id = context.org().id.as_str();
        let app = context.app;
        let binding = cursor::binding(org_id, &format!("leads?{}", context.filters));
        let after = match &self.cursor {
            Some(text) => Some(app.cursors.read(&app.pool, &binding, text).await?),
            None => None,
        };
        let page = self.selection.page(from.connection(), org_id, after, self.limit).await?;
        let (items, next) = page;
        let next_cursor = match next {
            Some(position) => Some(app.cursors.write(&app.pool, &binding, position).await?),
            None => None,
        };
        let count = self.count(org_id, from).await?;
        Ok(Loaded::json(&Page { items, next_cursor, count }, Lives::Short)?)
    }
}

impl Selection {
    pub(crate) fn parse(params: &mut Params, caller: &Caller) -> Self {
        Self {
            filter: Filter::parse(params, &caller.org),
            descending: params.choice("order", &[("desc", true), ("asc", false)], true),
        }
    }

    /// A page, and where the next one begins if there is one.
    pub(crate) async fn page(
        &self,
        from: impl PgExecutor<'_>,
        org_id: &str,
        after: Option<Position>,
        limit: i64,
    ) -> Result<(Vec<Fact>, Option<Position>), sqlx::Error> {
        let mut query = self.query(org_id, after, limit);
        let mut items: Vec<Fact> = query.build_query_as().fetch_all(from).await?;
        let last = cursor::cut(&mut items, limit);
        let next = last.map(|fact| self.filter.date_field.position(fact));
        Ok((items, next))
    }

    /// One row more than the page: is there another one?
    fn query(&self, org_id: &str, after: Option<Position>, limit: i64) -> QueryBuilder<Postgres> {
        let column = self.filter.date_field.column();
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        self.filter.push(&mut query, org_id);
        if let Some(position) = after {
            let (at, board_id, item_id) = DateField::split(position);
            // A row comparison, which an index can answer; the same by `or` can't be.
            let beyond = if self.descending { "<" } else { ">" };
            query.push(format_args!(" and ({column}, board_id, item_id) {beyond} ("));
            query.push_bind(at).push(", ").push_bind(board_id).push(", ").push_bind(item_id);
            query.push(")");
            self.filter.date_field.push_week(&mut query, &format!("{beyond}="), at);
        }
        let order = if self.descending { "desc" } else { "asc" };
        query.push(" order by ");
        if let Some(week) = self.filter.date_field.week() {
            query.push(format_args!("{week} {order}, "));
        }
        query.push(format_args!("{column} {order}, board_id {order}, item_id {order} limit "));
        query.push_bind(limit + 1);
        query
    }
}

impl Leads {
    async fn count(&self, org_id: &str, from: &mut Snapshot) -> Result<Option<i64>, NotLoaded> {
        let head = match self.count {
            Count::None => return Ok(None),
            Count::Exact => "select count(*) from lead_fact",
            Count::Estimated => "explain (format json) select 1 from lead_fact",
        };
        let mut query = QueryBuilder::<Postgres>::new(head);
        self.selection.filter.push(&mut query, org_id);
        let row: PgRow = query.build().fetch_one(from.connection()).await?;
        if self.count == Count::Exact {
            return Ok(Some(row.try_get(0)?));
        }
        let plan: serde_json::Value = row.try_get(0)?;
        Ok(plan.pointer("/0/Plan/Plan Rows").and_then(serde_json::Value::as_i64))
    }
}
