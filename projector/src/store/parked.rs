//! Dead letters: events that can't be applied, and the later ones of the same lead, in order.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use leadpulse_nats::Envelope;
use sha2::{Digest, Sha256};
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use super::{PROJECTION, leads::signed};
use crate::event::LeadKey;

/// An event on its way to the dead letters. The envelope is missing where it could not be read.
#[derive(Debug, Clone)]
pub struct Parked {
    pub seq: u64,
    pub trace_id: Option<Uuid>,
    pub envelope: Option<Envelope>,
    pub payload: Bytes,
    pub reason: String,
}

/// A sequence says which event it is only in its stream. The letters of the stream that the projection
/// stands in; those of an earlier one are history, and wait for an operator.
macro_rules! this_stream {
    () => {
        " stream_created_at = (select min(stream_created_at) from checkpoint where projection = $1) "
    };
}
pub(crate) use this_stream;

/// Events that operators have given up. In its own stream a letter is one delivery of an event; in
/// another one, which was filled from an export, it is whatever has the event's id.
#[derive(Debug, Clone, Default)]
pub struct Skips {
    seqs: HashSet<u64>,
    events: HashSet<u128>,
}

impl Skips {
    fn contains(&self, seq: u64, envelope: &Result<Envelope, String>) -> bool {
        self.seqs.contains(&seq) || holds(&self.events, envelope)
    }
}

fn holds(events: &HashSet<u128>, envelope: &Result<Envelope, String>) -> bool {
    match envelope {
        Ok(envelope) if !events.is_empty() => {
            events.contains(&short_id(&text(&envelope.message_id())))
        }
        Ok(_) | Err(_) => false,
    }
}

/// Enough of a message id's digest to tell it from a thousand million others.
pub(crate) fn short_id(id: &str) -> u128 {
    let digest = Sha256::digest(id);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(digest.get(..16).unwrap_or(&[0; 16]));
    u128::from_be_bytes(bytes)
}

/// Events that no fold applies: what waits in the dead letters, and what an operator skipped.
/// Whoever folds the stream beside the projection leaves these out, or its rows would differ.
#[derive(Debug, Clone, Default)]
pub struct LeftOut {
    pub waiting: HashSet<u64>,
    pub skipped: Skips,
    /// Events that wait as letters of an earlier stream: where this one has them, those are settled.
    earlier: HashSet<u128>,
}

impl LeftOut {
    /// As the letters stand beside the tables that the connection finds first.
    pub async fn load(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        Self::after(connection, 0).await
    }

    /// Of the present stream only what comes after this sequence.
    async fn after(connection: &mut PgConnection, seq: u64) -> Result<Self, sqlx::Error> {
        let query = concat!(
            "select seq, resolved_at is null, ",
            this_stream!(),
            ", org_id || ':' || event_id from dead_letter
             where projection = $1 and (resolved_at is null or starts_with(resolution, $2))
               and (seq > $3 or not ",
            this_stream!(),
            ")"
        );
        let query = sqlx::query_as(query).bind(PROJECTION).bind(SKIPPED).bind(signed(seq));
        let rows: Vec<(i64, bool, Option<bool>, Option<String>)> =
            query.fetch_all(connection).await?;
        let mut left_out = Self::default();
        for (seq, waiting, present, id) in rows {
            match (present.unwrap_or(false), waiting, id) {
                (true, true, _) => left_out.waiting.insert(unsigned(seq)),
                (true, false, _) => left_out.skipped.seqs.insert(unsigned(seq)),
                (false, true, Some(id)) => left_out.earlier.insert(short_id(&id)),
                (false, false, Some(id)) => left_out.skipped.events.insert(short_id(&id)),
                // Nobody could read it, so nobody can tell it from others.
                (false, _, None) => false,
            };
        }
        Ok(left_out)
    }

    pub fn contains(&self, seq: u64, envelope: &Result<Envelope, String>) -> bool {
        self.waiting.contains(&seq) || self.skipped.contains(seq, envelope)
    }

    /// Does this event wait as a letter of an earlier stream?
    pub fn returns(&self, envelope: &Result<Envelope, String>) -> bool {
        holds(&self.earlier, envelope)
    }

    /// Without what waits: whoever finds out anew what can't be applied.
    #[must_use]
    pub fn but_for_waiting(self) -> Self {
        Self { waiting: HashSet::new(), ..self }
    }
}

/// What a lane does not apply, also when its position goes back and it meets everything once more.
#[derive(Debug, Clone, Default)]
pub struct SetAside {
    /// Of what waits only what has no lead: mostly messages that nobody could read.
    left_out: LeftOut,
    /// The first waiting letter of each parked lead. What came before it is in the row; what comes after
    /// it must wait behind it.
    parked: HashMap<LeadKey, u64>,
}

impl SetAside {
    /// For a lane that begins after this sequence.
    pub async fn load(connection: &mut PgConnection, after: u64) -> Result<Self, sqlx::Error> {
        let mut left_out = LeftOut::after(connection, after).await?;
        let rows = sqlx::query(concat!(
            "select org_id, board_id, item_id, min(seq), array_agg(seq) from dead_letter
             where projection = $1 and resolved_at is null
               and org_id is not null and board_id is not null and item_id is not null and ",
            this_stream!(),
            "group by org_id, board_id, item_id"
        ))
        .bind(PROJECTION)
        .fetch_all(connection)
        .await?;
        let mut parked = HashMap::new();
        for row in &rows {
            for seq in row.try_get::<Vec<i64>, _>(4)? {
                left_out.waiting.remove(&unsigned(seq));
            }
            parked.insert(LeadKey::from_row(row)?, unsigned(row.try_get(3)?));
        }
        Ok(Self { left_out, parked })
    }

    pub fn is_left_out(&self, seq: u64, envelope: &Result<Envelope, String>) -> bool {
        self.left_out.contains(seq, envelope)
    }

    pub fn returns(&self, envelope: &Result<Envelope, String>) -> bool {
        self.left_out.returns(envelope)
    }

    /// Does this event wait behind a letter of its lead, or is it one?
    pub fn is_parked(&self, key: &LeadKey, seq: u64) -> bool {
        self.parked.get(key).is_some_and(|first| seq >= *first)
    }

    pub fn park(&mut self, leads: impl IntoIterator<Item = (LeadKey, u64)>) {
        self.parked.extend(leads);
    }

    pub fn unpark(&mut self, key: &LeadKey) {
        self.parked.remove(key);
    }
}

fn unsigned(seq: i64) -> u64 {
    u64::try_from(seq).unwrap_or(0)
}

/// Parks events; one that is parked already stays as it is.
pub async fn park(connection: &mut PgConnection, events: &[Parked]) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let of =
        |event: &Parked, read: fn(&Envelope) -> Option<i64>| event.envelope.as_ref().and_then(read);
    sqlx::query(
        "insert into dead_letter (projection, stream_created_at, seq, org_id, board_id, item_id, event_id, kind,
             reason, payload, trace_id)
         select $1, (select min(stream_created_at) from checkpoint where projection = $1), *
         from unnest($2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
             $9::bytea[], $10::uuid[])
         on conflict (projection, stream_created_at, seq) do nothing",
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
    .bind(events.iter().map(|event| event.trace_id).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Postgres' texts have no zero byte, and nothing of what says which letter it is may refuse the letter.
fn text(text: &str) -> String {
    text.replace('\0', "")
}

/// How `resolution` begins where an operator decided that the event must never be applied.
pub const SKIPPED: &str = "skipped";

/// `resolution` of a letter of an earlier stream whose event has come with the present one.
pub const RETURNED: &str = "in the stream again";

/// Settles what waited as letters of an earlier stream: these events have come with the present one, and
/// are applied or parked as its own.
pub async fn settle_returned(
    connection: &mut PgConnection,
    events: &[(String, String)],
) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query(concat!(
        "update dead_letter set resolved_at = now(), resolution = $4, retry_requested_at = null
         where projection = $1 and resolved_at is null and not ",
        this_stream!(),
        "and (org_id, event_id) in (select * from unnest($2::text[], $3::text[]))"
    ))
    .bind(PROJECTION)
    .bind(events.iter().map(|(org, _)| text(org)).collect::<Vec<_>>())
    .bind(events.iter().map(|(_, id)| text(id)).collect::<Vec<_>>())
    .bind(RETURNED)
    .execute(connection)
    .await?;
    Ok(())
}

/// A letter as it is applied again.
#[derive(Debug)]
pub struct Letter {
    pub seq: u64,
    pub trace_id: Option<Uuid>,
    pub payload: Vec<u8>,
}

/// The unresolved letters of a lead in the stream's order, locked.
pub async fn letters_of(
    connection: &mut PgConnection,
    key: &LeadKey,
) -> Result<Vec<Letter>, sqlx::Error> {
    let rows = sqlx::query(
        concat!("select seq, trace_id, payload from dead_letter
         where projection = $1 and org_id = $2 and board_id = $3 and item_id = $4 and resolved_at is null and ", this_stream!(), "
         order by seq for update"),
    )
    .bind(PROJECTION)
    .bind(&key.org_id)
    .bind(key.board_id)
    .bind(key.item_id)
    .fetch_all(connection)
    .await?;
    let letter = |row: sqlx::postgres::PgRow| {
        let seq = unsigned(row.try_get(0)?);
        Ok(Letter { seq, trace_id: row.try_get(1)?, payload: row.try_get(2)? })
    };
    rows.into_iter().map(letter).collect()
}

/// How reading or applying letters again ended: resolved, or parked on with the reason `$2`.
macro_rules! settle {
    ($which:literal) => {
        concat!(
            "update dead_letter set
                 retry_requested_at = null,
                 reason = coalesce($2, reason),
                 resolved_at = case when $2::text is null then now() end,
                 resolution = case when $2::text is null then 'retried' end
             where projection = $1 and resolved_at is null and ",
            this_stream!(),
            " and ",
            $which
        )
    };
}

/// The letters of a lead, after a retry.
pub async fn settle_letters(
    connection: &mut PgConnection,
    key: &LeadKey,
    refused: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(settle!("org_id = $3 and board_id = $4 and item_id = $5"))
        .bind(PROJECTION)
        .bind(refused.map(text))
        .bind(&key.org_id)
        .bind(key.board_id)
        .bind(key.item_id)
        .execute(connection)
        .await?;
    Ok(())
}

/// The leads whose letters an operator wants applied again.
pub async fn retries_requested(connection: &mut PgConnection) -> Result<Vec<LeadKey>, sqlx::Error> {
    sqlx::query_as(concat!(
        "select distinct org_id, board_id, item_id from dead_letter
         where projection = $1 and retry_requested_at is not null and resolved_at is null
           and org_id is not null and board_id is not null and item_id is not null and ",
        this_stream!(),
        "
         limit 1000"
    ))
    .bind(PROJECTION)
    .fetch_all(connection)
    .await
}

/// Leads of which the first letter that waits came in the last ten minutes, and letters of no lead: many of
/// them are a systemic fault.
pub async fn recently_parked(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let (count,): (i64,) = sqlx::query_as(
        "select count(*) from (
             select min(parked_at) as parked_at from dead_letter
             where projection = $1 and resolved_at is null
             group by org_id, board_id, item_id, case when item_id is null then seq end) as parked
         where parked_at > now() - interval '10 minutes'",
    )
    .bind(PROJECTION)
    .fetch_one(connection)
    .await?;
    Ok(count)
}

/// A letter of no lead that an operator wants read again.
#[derive(Debug, sqlx::FromRow)]
pub struct Unread {
    pub seq: i64,
    pub payload: Vec<u8>,
}

/// The letters without a lead whose retry was asked for.
pub async fn unread_requested(connection: &mut PgConnection) -> Result<Vec<Unread>, sqlx::Error> {
    sqlx::query_as(concat!(
        "select seq, payload from dead_letter
         where projection = $1 and retry_requested_at is not null and resolved_at is null
           and (org_id is null or board_id is null or item_id is null) and ",
        this_stream!(),
        "
         order by seq limit 100"
    ))
    .bind(PROJECTION)
    .fetch_all(connection)
    .await
}

/// It is readable now: from here on it is a letter of its lead, whose request stands.
pub async fn name_unread(
    connection: &mut PgConnection,
    seq: i64,
    envelope: &Envelope,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!(
        "update dead_letter set org_id = $3, board_id = $4, item_id = $5, event_id = $6, kind = $7
         where projection = $1 and seq = $2 and ",
        this_stream!()
    ))
    .bind(PROJECTION)
    .bind(seq)
    .bind(text(&envelope.org))
    .bind(envelope.board_id)
    .bind(envelope.item_id)
    .bind(text(&envelope.event_id))
    .bind(text(envelope.kind.as_str()))
    .execute(connection)
    .await?;
    Ok(())
}

/// The letter of no lead, after it was read again.
pub async fn settle_unread(
    connection: &mut PgConnection,
    seq: i64,
    refused: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query(settle!("seq = $3"))
        .bind(PROJECTION)
        .bind(refused.map(text))
        .bind(seq)
        .execute(connection)
        .await?;
    Ok(())
}
