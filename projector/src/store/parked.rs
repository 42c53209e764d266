//! Dead letters: events that can't be applied, and the later ones of the same lead, in order.

use std::collections::HashSet;

use bytes::Bytes;
use leadpulse_nats::Envelope;
use sqlx::PgConnection;

use super::{PROJECTION, leads::signed};
use crate::event::LeadKey;

/// An event on its way to the dead letters. The envelope is missing where it could not be read.
#[derive(Debug, Clone)]
pub struct Parked {
    pub seq: u64,
    pub envelope: Option<Envelope>,
    pub payload: Bytes,
    pub reason: String,
}

/// The leads with unresolved dead letters: their later events must wait behind them.
pub async fn load_parked(connection: &mut PgConnection) -> Result<HashSet<LeadKey>, sqlx::Error> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select distinct org_id, board_id, item_id from dead_letter
         where projection = $1 and resolved_at is null
           and org_id is not null and board_id is not null and item_id is not null",
    )
    .bind(PROJECTION)
    .fetch_all(connection)
    .await?;
    let keys =
        rows.into_iter().map(|(org_id, board_id, item_id)| LeadKey { org_id, board_id, item_id });
    Ok(keys.collect())
}

/// Parks events; one that is parked already stays as it is.
pub async fn park(connection: &mut PgConnection, events: &[Parked]) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let of =
        |event: &Parked, read: fn(&Envelope) -> Option<i64>| event.envelope.as_ref().and_then(read);
    let text = |text: &str| text.replace('\0', "");
    sqlx::query(
        "insert into dead_letter (projection, seq, org_id, board_id, item_id, event_id, kind, reason, payload)
         select $1, * from unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::text[],
             $7::text[], $8::text[], $9::bytea[])
         on conflict (projection, seq) do nothing",
    )
    .bind(PROJECTION)
    .bind(events.iter().map(|event| signed(event.seq)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.envelope.as_ref().map(|e| text(&e.org))).collect::<Vec<_>>())
    .bind(events.iter().map(|event| of(event, |e| e.board_id)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| of(event, |e| e.item_id)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.envelope.as_ref().map(|e| text(&e.event_id))).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.envelope.as_ref().map(|e| text(e.kind.as_str()))).collect::<Vec<_>>())
    .bind(events.iter().map(|event| text(&event.reason)).collect::<Vec<_>>())
    .bind(events.iter().map(|event| event.payload.as_ref()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
