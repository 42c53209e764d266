//! `GET /v1/users`: the users of the org's monday.com account.

use serde::Serialize;
use sqlx::{FromRow, Postgres, QueryBuilder};

use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    cursor::{self, Position},
    db::Snapshot,
    params::{self, Params},
    read::{Context, Loaded, NotLoaded, Read},
    text,
    value::wire,
};

const LIMIT: i64 = 50;
const MOST: i64 = 200;

pub(crate) struct Users {
    q: Option<String>,
    ids: Vec<i64>,
    cursor: Option<String>,
    limit: i64,
    emails: bool,
}

#[derive(Debug, FromRow, Serialize)]
struct User {
    #[serde(serialize_with = "wire::id")]
    user_id: i64,
    name: Option<String>,
    /// Only with the scope `pii:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    kind: Option<String>,
    status: Option<String>,
}

#[derive(Serialize)]
struct Page {
    items: Vec<User>,
    next_cursor: Option<String>,
}

impl Read for Users {
    const FAMILY: &'static str = "users";
    const SCOPE: Scope = Scope::Users;
    const SHOWS_PII: bool = true;

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        // `ids=1,2` and `ids=1&ids=2` are the same.
        let ids = params.many("ids", |list| {
            list.split(',').map(params::id).collect::<Result<Vec<i64>, String>>()
        });
        let ids: Vec<i64> = ids.into_iter().flatten().collect();
        if ids.len() > 1000 {
            params.fault("ids", "lists more than 1000 ids");
        }
        Self {
            q: params.one("q", params::name),
            ids,
            cursor: params.one("cursor", params::cursor),
            limit: params.number("limit", 1, MOST).unwrap_or(LIMIT),
            emails: caller.may(Scope::Pii),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let (app, org) = (context.app, context.org());
        let binding = cursor::binding(&org.id, &format!("users?{}", context.filters));
        let after = match &self.cursor {
            Some(text) => app.cursors.read(&app.pool, &binding, text).await?.0[0],
            None => i64::MIN,
        };
        let mut query = QueryBuilder::<Postgres>::new("select user_id, name, ");
        query.push(if self.emails { "email" } else { "null as email" });
        query.push(", kind, status from monday_user where org_id = ").push_bind(org.id.as_str());
        query.push(" and user_id > ").push_bind(after);
        if !self.ids.is_empty() {
            query.push(" and user_id = any (").push_bind(self.ids.clone()).push(")");
        }
        if let Some(q) = &self.q {
            query.push(" and search_form(name) like ").push_bind(text::part(q));
        }
        query.push(" order by user_id limit ").push_bind(self.limit + 1);
        let mut items: Vec<User> = query.build_query_as().fetch_all(from.connection()).await?;
        let next_cursor = match cursor::cut(&mut items, self.limit) {
            Some(last) => {
                let position = Position([last.user_id, 0, 0]);
                Some(app.cursors.write(&app.pool, &binding, position).await?)
            }
            None => None,
        };
        Ok(Loaded::json(&Page { items, next_cursor }, Lives::Long)?)
    }
}
