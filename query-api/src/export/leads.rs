//! The leads, streamed page by page: constant memory whatever their number, and no connection is held
//! while a slow client reads. A rebuild that takes the tables' place meanwhile ends the file early: its
//! rows may mean something else.

use std::sync::Arc;

use anyhow::{Result, ensure};
use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::time::Instant;

use super::csv;
use crate::{
    asked::Asked,
    auth::Scope,
    cursor::Position,
    db::Snapshot,
    leads::{Fact, Selection},
    problem::Problem,
    read::BEHIND,
    state::App,
    value,
};

/// Rows in memory.
const PAGE: i64 = 2000;
const COST: u32 = 200;

const COLUMNS: [&str; 26] = [
    "board_id",
    "item_id",
    "name",
    "group_id",
    "status_id",
    "status_label",
    "assigned_user_id",
    "agent_name",
    "assigned_at",
    "deal_amount",
    "industry",
    "next_call_date",
    "entered_at",
    "entered_source",
    "first_touch_at",
    "response_seconds",
    "last_activity_at",
    "state",
    "closed_won_at",
    "time_to_close_seconds",
    "closed_lost_at",
    "closed_by_user_id",
    "lifecycle",
    "last_event_at",
    "last_seq",
    "trace_id",
];
const FREE: [&str; 5] = ["name", "group_id", "status_label", "agent_name", "industry"];

pub(crate) async fn leads_csv(asked: Asked) -> Result<Response, Problem> {
    let caller = asked.caller([Scope::Export, Scope::Leads]).await?;
    let mut params = asked.params();
    let app = asked.app;
    let left = app.limits.admit(&caller, COST)?;
    let min_seq = params.number("min_seq", 0, i64::MAX).unwrap_or(0);
    let bom = params.choice("bom", &[("true", true), ("false", false)], false);
    let selection = Selection::parse(&mut params, &caller);
    params.finish()?;

    app.applied.wait(&app.pool, min_seq, Instant::now() + BEHIND).await?;
    let snapshot = Snapshot::open(&app.pool).await?;
    let (seq, at, tables) = (snapshot.seq, snapshot.at, snapshot.tables);
    snapshot.close().await?;
    let mut head = String::from(if bom { csv::BOM } else { "" });
    head.push_str(&csv::header(&COLUMNS));
    let (org_id, next) = (caller.org.id.clone(), Next::First);
    let pages = Pages { app, org_id, selection, tables, head, next };
    let body = Body::from_stream(stream::try_unfold(pages, Pages::next));
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let file = HeaderValue::from_static("attachment; filename=\"leads.csv\"");
    headers.insert(header::CONTENT_DISPOSITION, file);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert("leadpulse-seq", HeaderValue::from(seq));
    if let Ok(at) = HeaderValue::try_from(value::instant(at)) {
        headers.insert("leadpulse-as-of", at);
    }
    left.tell(headers);
    Ok(response)
}

struct Pages {
    app: Arc<App>,
    org_id: String,
    selection: Selection,
    /// Those that the first page is from.
    tables: i64,
    head: String,
    next: Next,
}

enum Next {
    First,
    After(Position),
    End,
}

impl Pages {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>> {
        let after = match self.next {
            Next::First => None,
            Next::After(position) => Some(position),
            Next::End => return Ok(None),
        };
        // The status is sent: a broken connection is the only way left to say that something failed.
        let (facts, position) = self.page(after).await.inspect_err(|error| {
            tracing::warn!(error = format!("{error:#}"), "an export ends early");
        })?;
        let mut text = std::mem::take(&mut self.head);
        for fact in &facts {
            csv::row(&mut text, &COLUMNS, &FREE, fact);
        }
        self.next = position.map_or(Next::End, Next::After);
        Ok(Some((Bytes::from(text), self)))
    }

    async fn page(&self, after: Option<Position>) -> Result<(Vec<Fact>, Option<Position>)> {
        let mut snapshot = Snapshot::open(&self.app.pool).await?;
        ensure!(snapshot.tables == self.tables, "the tables were rebuilt meanwhile");
        let page = self.selection.page(snapshot.connection(), &self.org_id, after, PAGE).await?;
        snapshot.close().await?;
        Ok(page)
    }
}
