//! Whole rows of LeadFact, in bulk: COPY into a table without indexes, and read back field by field.

use std::collections::HashMap;

use bytes::Bytes;
use sqlx::{
    AssertSqlSafe, Encode, PgConnection, Postgres, Row,
    encode::IsNull,
    postgres::{PgArgumentBuffer, PgRow},
};

use super::leads::signed;
use crate::{
    event::{LeadKey, Lifecycle},
    fold::{LeadRow, State},
};

/// The columns in the order of [`read_lead`] and [`copy_leads`].
pub const LEAD_COLUMNS: &str = "org_id, board_id, item_id, name, group_id, status_id, status_label, \
    assigned_user_id, assigned_at, deal_amount, industry, next_call_date, entered_at, entered_source, \
    first_touch_at, last_activity_at, state, closed_won_at, closed_lost_at, closed_by_user_id, \
    lifecycle, last_event_at, last_seq, trace_id, fold_state";
const COUNT: i16 = 25;
/// Sent in pieces of this size.
const PIECE: usize = 256 * 1024;
/// The head of Postgres' binary format: its signature, no flags, no extension.
const HEAD: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// Writes rows that are not there yet, all or none.
pub async fn copy_leads(
    connection: &mut PgConnection,
    rows: &[(&LeadKey, LeadRow, Vec<u8>)],
) -> Result<(), sqlx::Error> {
    let statement = format!("copy lead_fact ({LEAD_COLUMNS}) from stdin (format binary)");
    let mut copy = connection.copy_in_raw(&statement).await?;
    let mut piece = Piece::default();
    piece.buffer.extend_from_slice(HEAD);
    for (key, row, state) in rows {
        if let Err(error) = piece.lead(key, row, state) {
            copy.abort("a value can't be written").await?;
            return Err(sqlx::Error::Encode(error));
        }
        if piece.buffer.len() >= PIECE {
            copy.send(piece.take()).await?;
        }
    }
    piece.buffer.extend_from_slice(&(-1_i16).to_be_bytes());
    copy.send(piece.take()).await?;
    copy.finish().await?;
    Ok(())
}

type Encoded = Result<(), Box<dyn std::error::Error + Send + Sync>>;

#[derive(Default)]
struct Piece {
    buffer: PgArgumentBuffer,
}

impl Piece {
    fn lead(&mut self, key: &LeadKey, row: &LeadRow, state: &[u8]) -> Encoded {
        self.buffer.extend_from_slice(&COUNT.to_be_bytes());
        self.field(&key.org_id)?;
        self.field(key.board_id)?;
        self.field(key.item_id)?;
        self.field(row.name.as_deref())?;
        self.field(row.group_id.as_deref())?;
        self.field(row.status_id)?;
        self.field(row.status_label.as_deref())?;
        self.field(row.assigned_user_id)?;
        self.field(row.assigned_at)?;
        self.field(row.deal_amount)?;
        self.field(row.industry.as_deref())?;
        self.field(row.next_call_date)?;
        self.field(row.entered_at)?;
        self.field(row.entered_source)?;
        self.field(row.first_touch_at)?;
        self.field(row.last_activity_at)?;
        self.field(row.state.as_str())?;
        self.field(row.closed_won_at)?;
        self.field(row.closed_lost_at)?;
        self.field(row.closed_by_user_id)?;
        self.field(row.lifecycle.as_str())?;
        self.field(row.last_event_at)?;
        self.field(signed(row.last_seq))?;
        self.field(row.trace_id)?;
        self.field(state)
    }

    /// A field is its length and its bytes in the protocol's binary form; −1 is null.
    fn field<'q, T: Encode<'q, Postgres>>(&mut self, value: T) -> Encoded {
        let place = self.buffer.len();
        self.buffer.extend_from_slice(&(-1_i32).to_be_bytes());
        if let IsNull::No = value.encode(&mut self.buffer)? {
            let length = i32::try_from(self.buffer.len() - place - 4)?;
            if let Some(slot) = self.buffer.get_mut(place..place + 4) {
                slot.copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Bytes {
        let mut buffer = std::mem::take(&mut self.buffer);
        Bytes::from(std::mem::take(&mut *buffer))
    }
}

/// A row as it is stored, with its state.
pub type StoredLead = (LeadRow, Vec<u8>);

/// The stored ones of these leads.
pub async fn load_rows(
    connection: &mut PgConnection,
    keys: &[LeadKey],
) -> Result<HashMap<LeadKey, StoredLead>, sqlx::Error> {
    let query = format!(
        "select {LEAD_COLUMNS}
         from unnest($1::text[], $2::bigint[], $3::bigint[]) as wanted (org_id, board_id, item_id)
         join lead_fact using (org_id, board_id, item_id)"
    );
    let rows = sqlx::query(AssertSqlSafe(query))
        .bind(keys.iter().map(|key| key.org_id.as_str()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.board_id).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.item_id).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let read = |row: &PgRow| read_lead(row).map(|(key, row, state)| (key, (row, state)));
    rows.iter().map(read).collect()
}

/// A row selected by [`LEAD_COLUMNS`]: its key, its fields, and its stored state.
pub fn read_lead(row: &PgRow) -> Result<(LeadKey, LeadRow, Vec<u8>), sqlx::Error> {
    let key =
        LeadKey { org_id: row.try_get(0)?, board_id: row.try_get(1)?, item_id: row.try_get(2)? };
    let known = LeadRow {
        name: row.try_get(3)?,
        group_id: row.try_get(4)?,
        status_id: row.try_get(5)?,
        status_label: row.try_get(6)?,
        assigned_user_id: row.try_get(7)?,
        assigned_at: row.try_get(8)?,
        deal_amount: row.try_get(9)?,
        industry: row.try_get(10)?,
        next_call_date: row.try_get(11)?,
        entered_at: row.try_get(12)?,
        entered_source: match row.try_get::<&str, _>(13)? {
            "api" => "api",
            "created" => "created",
            _ => "first_seen",
        },
        first_touch_at: row.try_get(14)?,
        last_activity_at: row.try_get(15)?,
        state: match row.try_get::<&str, _>(16)? {
            "won" => State::Won,
            "lost" => State::Lost,
            _ => State::Open,
        },
        closed_won_at: row.try_get(17)?,
        closed_lost_at: row.try_get(18)?,
        closed_by_user_id: row.try_get(19)?,
        lifecycle: match row.try_get::<&str, _>(20)? {
            "archived" => Lifecycle::Archived,
            "deleted" => Lifecycle::Deleted,
            _ => Lifecycle::Active,
        },
        last_event_at: row.try_get(21)?,
        last_seq: u64::try_from(row.try_get::<i64, _>(22)?).unwrap_or(0),
        trace_id: row.try_get(23)?,
    };
    Ok((key, known, row.try_get(24)?))
}
