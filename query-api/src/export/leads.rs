//! The leads of one snapshot, read page by page: constant memory whatever their number. While it lasts, the
//! snapshot holds back vacuum and the swap of a rebuild, so it does not wait for its client: what Postgres
//! tells is written to a file, and the client takes it from there.

use std::time::Duration;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout},
};

use super::{csv, spool::Writer};
use crate::{
    asked::Asked,
    auth::Scope,
    cache::Origin,
    db::Snapshot,
    download,
    header::{AS_OF, CACHE_STATUS, SEQ},
    leads::Selection,
    problem::Problem,
    read::BEHIND,
    value,
};

/// Rows of a page.
const PAGE: i64 = 1000;
/// All must be read within this time.
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
    let (turn, file, taken) = app.exports.begin(&caller.org.id).await?;
    let snapshot = Snapshot::open(&app.exports.pool).await?;
    let (seq, at) = (snapshot.seq, snapshot.at);
    app.applied.note(seq);
    if seq < min_seq {
        return Err(Problem::Behind { asked: min_seq, applied: seq });
    }
    let head = format!("{}{}", if bom { csv::BOM } else { "" }, csv::header(&COLUMNS));
    let export = Export { snapshot, org_id: caller.org.id.clone(), selection, _turn: turn };
    tokio::spawn(fill(file, head, export));
    let silence = app.ops.config.query_api.transfer_silence;
    let mut response = download::body(taken, silence).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let file = HeaderValue::from_static("attachment; filename=\"leads.csv\"");
    headers.insert(header::CONTENT_DISPOSITION, file);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    headers.insert(CACHE_STATUS, Origin::Uncached.status());
    headers.insert(SEQ, HeaderValue::from(seq));
    if let Ok(at) = HeaderValue::try_from(value::instant(at)) {
        headers.insert(AS_OF, at);
    }
    left.tell(headers);
    Ok(response)
}

struct Export {
    snapshot: Snapshot,
    org_id: String,
    selection: Selection,
    _turn: OwnedSemaphorePermit,
}

async fn fill(file: Writer, head: String, export: Export) {
    let why = match timeout(WHOLE, export.write(head, file)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("it is not read in {} s", WHOLE.as_secs()),
    };
    tracing::warn!(why, "an export ends early");
}

impl Export {
    async fn write(mut self, mut text: String, mut file: Writer) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let connection = self.snapshot.connection();
            let (facts, next) = self.selection.page(connection, &self.org_id, after, PAGE).await?;
            for fact in &facts {
                csv::row(&mut text, &COLUMNS, &FREE, fact);
            }
            file.write(text.as_bytes()).await?;
            text.clear();
            if next.is_none() {
                break;
            }
            after = next;
        }
        self.snapshot.close().await?;
        file.end();
        Ok(())
    }
}
