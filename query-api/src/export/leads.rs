//! The leads of one snapshot, streamed page by page: constant memory whatever their number. While it lasts, the
//! snapshot holds back vacuum and the swap of a rebuild, so a client that takes nothing for a while, or
//! not all in a minute, gets no more of the file.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::stream;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::csv;
use crate::{
    asked::Asked,
    auth::Scope,
    db::Snapshot,
    header::{AS_OF, SEQ},
    leads::Selection,
    problem::Problem,
    read::BEHIND,
    value,
};

/// Rows of a page; one is made ahead of the client.
const PAGE: i64 = 1000;
/// A client takes a page within this time, and the whole file within that.
const STALLED: Duration = Duration::from_secs(5);
const WHOLE: Duration = Duration::from_secs(60);
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
    let snapshot = Snapshot::open(&app.exports).await?;
    let (seq, at) = (snapshot.seq, snapshot.at);
    let head = format!("{}{}", if bom { csv::BOM } else { "" }, csv::header(&COLUMNS));
    let export = Export { snapshot, org_id: caller.org.id.clone(), selection };
    let (sender, pages) = mpsc::channel(1);
    let stalled = STALLED.min(app.ops.config.query_api.transfer_silence);
    tokio::spawn(send(export, head, sender, stalled));
    let mut response = body(pages).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let file = HeaderValue::from_static("attachment; filename=\"leads.csv\"");
    headers.insert(header::CONTENT_DISPOSITION, file);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(SEQ, HeaderValue::from(seq));
    if let Ok(at) = HeaderValue::try_from(value::instant(at)) {
        headers.insert(AS_OF, at);
    }
    left.tell(headers);
    Ok(response)
}

/// The last one is none: a file without it has not ended well.
type Page = Option<Bytes>;

/// The status is sent: a broken connection is the only way left to say that something failed.
fn body(pages: mpsc::Receiver<Page>) -> Body {
    Body::from_stream(stream::unfold(Some(pages), async |pages| {
        let mut pages = pages?;
        match pages.recv().await {
            Some(Some(page)) => Some((Ok(page), Some(pages))),
            Some(None) => None,
            None => Some((Err("the export was given up"), None)),
        }
    }))
}

struct Export {
    snapshot: Snapshot,
    org_id: String,
    selection: Selection,
}

/// Not driven by the client: the snapshot ends in time whatever the client does.
async fn send(export: Export, head: String, pages: mpsc::Sender<Page>, stalled: Duration) {
    let sent = timeout(WHOLE, export.send(head, &pages, stalled)).await;
    let why = match sent {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => format!("it is not done in {} s", WHOLE.as_secs()),
    };
    tracing::warn!(why, "an export ends early");
}

impl Export {
    async fn send(
        mut self,
        mut text: String,
        pages: &mpsc::Sender<Page>,
        stalled: Duration,
    ) -> Result<(), String> {
        let mut after = None;
        loop {
            let connection = self.snapshot.connection();
            let page = self.selection.page(connection, &self.org_id, after, PAGE).await;
            let (facts, next) = page.map_err(|error| error.to_string())?;
            for fact in &facts {
                csv::row(&mut text, &COLUMNS, &FREE, fact);
            }
            let page = Bytes::from(std::mem::take(&mut text));
            let taken = timeout(stalled, pages.send(Some(page))).await;
            if !matches!(taken, Ok(Ok(()))) {
                return Err("its client takes nothing".to_owned());
            }
            if next.is_none() {
                break;
            }
            after = next;
        }
        self.snapshot.close().await.map_err(|error| error.to_string())?;
        // The channel has room for it when the last page is taken.
        match timeout(stalled, pages.send(None)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err("its client takes nothing".to_owned()),
        }
    }
}
