//! `GET /v1/meta`: what a dashboard needs to know to ask: boards and their mapping, industries,
//! statuses, windows, the time zone.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use leadpulse_service::config::{Board, Labels};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::FromRow;

use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    cursor::cut,
    db::Snapshot,
    kpis::figures::industry_key,
    params::Params,
    read::{Context, Loaded, NotLoaded, Read},
    value::wire,
};

pub(crate) struct Meta;

#[derive(Debug, FromRow, Serialize)]
struct Status {
    #[serde(serialize_with = "wire::id")]
    board_id: i64,
    #[serde(serialize_with = "wire::some_id")]
    status_id: Option<i64>,
    status_label: Option<String>,
    leads: i64,
}

/// Statuses and industries that are listed at most, those of the most leads: each lead could have its own.
const MOST: usize = 1000;

/// Of the leads that entered in the org's longest window.
const STATUSES: &str = "
select board_id, status_id, status_label, count(*) as leads from lead_fact
where org_id = $1 and entered_at > $2 and lifecycle <> 'deleted'
group by board_id, status_id, status_label
order by leads desc, board_id, status_id, status_label limit $3";

const INDUSTRIES: &str = "
select industry from lead_fact
where org_id = $1 and entered_at > $2 and lifecycle <> 'deleted'
group by industry order by count(*) desc, industry limit $3";

impl Read for Meta {
    const FAMILY: &'static str = "meta";
    const SCOPE: Scope = Scope::Metrics;
    const COST: u32 = 5;

    fn parse(_: &mut Params, _: &Caller) -> Self {
        Self
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let org = context.org();
        let longest = org.windows.iter().copied().max().unwrap_or(30);
        let since = from.at - TimeDelta::days(i64::from(longest));
        // One more than is listed: are there others?
        let limit = i64::try_from(MOST + 1).unwrap_or(i64::MAX);
        let mut statuses: Vec<Status> = sqlx::query_as(STATUSES)
            .bind(&org.id)
            .bind(since)
            .bind(limit)
            .fetch_all(from.connection())
            .await?;
        let mut industries: Vec<Option<String>> = sqlx::query_scalar(INDUSTRIES)
            .bind(&org.id)
            .bind(since)
            .bind(limit)
            .fetch_all(from.connection())
            .await?;
        let all_statuses = cut(&mut statuses, MOST).is_none();
        let all_industries = cut(&mut industries, MOST).is_none();
        statuses.sort_by(|a, b| {
            let ids = |status: &Status| (status.board_id, status.status_id);
            ids(a).cmp(&ids(b)).then_with(|| a.status_label.cmp(&b.status_label))
        });
        let industries: BTreeSet<String> =
            industries.iter().map(|name| industry_key(name.as_deref())).collect();
        let answer = json!({
            "org": org.id,
            "time_zone": org.time_zone.name(),
            "windows": org.windows.iter().map(|days| format!("{days}d")).collect::<Vec<_>>(),
            "hot": { "window_hours": org.hot.window_hours, "min_deals": org.hot.min_deals },
            "boards": org.boards.iter().map(board).collect::<Vec<_>>(),
            "industries": industries,
            "industries_complete": all_industries,
            "statuses": statuses,
            "statuses_complete": all_statuses,
        });
        Ok(Loaded::json(&answer, Lives::Moment)?)
    }
}

fn board(board: &Board) -> Value {
    let labels = |labels: &Labels| {
        let ids: Vec<String> = labels.ids.iter().map(ToString::to_string).collect();
        json!({ "ids": ids, "texts": labels.texts })
    };
    json!({
        "board_id": board.id.to_string(),
        "name": board.name,
        "columns": {
            "owner": board.columns.owner,
            "status": board.columns.status,
            "amount": board.columns.amount,
            "industry": board.columns.industry,
            "next_call": board.columns.next_call,
        },
        "contacted": labels(&board.contacted),
        "won": labels(&board.won),
        "lost": labels(&board.lost),
    })
}
