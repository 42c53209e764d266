//! `GET /v1/leads/{board_id}/{item_id}/timeline`: what happened to a lead. The events are read from the
//! stream of record, by the sequences that the fold remembers of the lead, and folded one after the other
//! in the order in which they happened: what changed in the row is what is told.

mod change;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use projector::{
    event::{self, LeadEvent, LeadKey, Meaning},
    fold::LeadState,
    mapping::Mapping,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use change::{Change, changes};

use crate::{
    auth::{Caller, Scope},
    cache::Lives,
    consistency::Message,
    cursor::{self, Position},
    db::Snapshot,
    params::{self, Params},
    problem::Problem,
    read::{Context, Loaded, NotLoaded, Read},
    value::{seconds, wire},
};

const LIMIT: usize = 50;
const MOST: usize = 200;

pub(crate) struct Timeline {
    board_id: Option<i64>,
    item_id: Option<i64>,
    cursor: Option<String>,
    limit: usize,
}

#[derive(Serialize)]
struct Page {
    items: Vec<Happened>,
    next_cursor: Option<String>,
    /// All that happened is there: nothing is so long ago that it is not remembered, and the stream has it.
    complete: bool,
}

#[derive(Serialize)]
struct Happened {
    #[serde(flatten)]
    change: Change,
    #[serde(serialize_with = "wire::instant")]
    occurred_at: DateTime<Utc>,
    seq: u64,
    /// Who did it; null for a form, an automation or an import.
    #[serde(serialize_with = "wire::some_id")]
    actor_id: Option<i64>,
    actor_name: Option<String>,
    /// Null for the first one.
    seconds_since_previous: Option<f64>,
}

/// One message of the stream about the lead.
struct Told {
    event: LeadEvent,
    actor_id: Option<i64>,
}

impl Read for Timeline {
    const FAMILY: &'static str = "timeline";
    const SCOPE: Scope = Scope::Leads;
    const COST: u32 = 20;

    fn parse(params: &mut Params, _: &Caller) -> Self {
        Self {
            board_id: params.one("board_id", params::id),
            item_id: params.one("item_id", params::id),
            cursor: params.one("cursor", params::cursor),
            limit: params.number("limit", 1, MOST).unwrap_or(LIMIT),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let (app, org) = (context.app, context.org());
        let binding = cursor::binding(&org.id, &format!("timeline?{}", context.filters));
        let after = match &self.cursor {
            Some(text) => Some(app.cursors.read(&app.pool, &binding, text).await?),
            None => None,
        };
        let key = LeadKey {
            org_id: org.id.clone(),
            board_id: self.board_id.unwrap_or_default(),
            item_id: self.item_id.unwrap_or_default(),
        };
        let state = remembered(from.connection(), &key).await?.ok_or(Problem::NotFound)?;
        let messages = app.head.messages(state.seqs()).await.ok_or(Problem::Unavailable)?;
        let told = told(&messages, &key, &app.mapping);
        let complete = told.len() == state.seqs().len() && !state.forgets();
        let mut items = self.happened(told, &key, &app.mapping);
        if let Some(after) = after {
            items.drain(..beyond(&items, after));
        }
        let next_cursor = match cursor::cut(&mut items, self.limit) {
            Some((position, _)) => Some(app.cursors.write(&app.pool, &binding, *position).await?),
            None => None,
        };
        let mut items: Vec<Happened> = items.into_iter().map(|(_, item)| item).collect();
        name(from.connection(), &org.id, &mut items).await?;
        Ok(Loaded::json(&Page { items, next_cursor, complete }, Lives::Short)?)
    }
}

impl Timeline {
    /// In the order in which it happened, each with its name in a cursor: instant, sequence, place in the event.
    fn happened(
        &self,
        told: Vec<Told>,
        key: &LeadKey,
        mapping: &Mapping,
    ) -> Vec<(Position, Happened)> {
        let Some(board) = mapping.board(&key.org_id, key.board_id) else { return Vec::new() };
        let (mut state, mut before) = (LeadState::default(), None);
        let mut items = Vec::<(Position, Happened)>::new();
        for Told { event, actor_id } in told {
            state.apply(&event);
            let row = state.row(board);
            let occurred_at = instant::from_micros(event.occurred_at).unwrap_or_default();
            let found = changes(before.as_ref(), row.as_ref(), &event);
            for (place, change) in (0..).zip(found) {
                let position = Position([event.occurred_at, event.seq.cast_signed(), place]);
                let last = items.last().map(|(_, item)| item.occurred_at);
                let item = Happened {
                    change,
                    occurred_at,
                    seq: event.seq,
                    actor_id,
                    actor_name: None,
                    seconds_since_previous: last.map(|last| seconds(occurred_at - last)),
                };
                items.push((position, item));
            }
            before = row;
        }
        items
    }
}

/// Where the page after this item begins. Of one instant, events stand in the order of their ids, which a cursor
/// does not know: so the item is looked for, and one that is no longer there ends with its instant's beginning.
fn beyond(items: &[(Position, Happened)], after: Position) -> usize {
    let known = items.iter().position(|(position, _)| *position == after);
    let instant = |position: Position| position.0[0];
    known.map_or_else(
        || items.partition_point(|(position, _)| instant(*position) < instant(after)),
        |known| known + 1,
    )
}

async fn remembered(
    connection: &mut PgConnection,
    key: &LeadKey,
) -> Result<Option<LeadState>, Problem> {
    let state: Option<Vec<u8>> = sqlx::query_scalar(
        "select fold_state from lead_fact where org_id = $1 and board_id = $2 and item_id = $3",
    )
    .bind(&key.org_id)
    .bind(key.board_id)
    .bind(key.item_id)
    .fetch_optional(connection)
    .await?;
    let decoded = state.map(|bytes| LeadState::decode(&bytes)).transpose();
    decoded.map_err(|error| {
        tracing::error!(%error, "a lead's state can't be read");
        Problem::Internal
    })
}

/// What the messages say of this lead, in the order in which it happened. A sequence of a stream that was
/// made anew may belong to another lead now, which must not be told.
fn told(messages: &[Message], key: &LeadKey, mapping: &Mapping) -> Vec<Told> {
    let mut told: Vec<Told> = messages
        .iter()
        .filter_map(|message| {
            let meaning = event::decode(&message.envelope, message.seq, None, mapping);
            let Meaning::Lead(event) = meaning else { return None };
            let actor_id = actor(message.envelope.event.get());
            (event.key == *key).then_some(Told { event, actor_id })
        })
        .collect();
    told.sort_by(|a, b| {
        let order = |told: &Told| (told.event.occurred_at, told.event.event_id.clone());
        order(a).cmp(&order(b))
    });
    // Another copy of an event that the stream did not know any more says nothing new.
    told.dedup_by(|a, b| a.event.event_id == b.event.event_id);
    told
}

/// The person who did it.
fn actor(event: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Actor {
        #[serde(rename = "userId")]
        user_id: Option<i64>,
    }
    let actor: Actor = serde_json::from_str(event).ok()?;
    actor.user_id.filter(|id| *id > 0)
}

/// The names of all who did something, or were assigned; an unknown user shows as its id.
async fn name(
    connection: &mut PgConnection,
    org_id: &str,
    items: &mut [Happened],
) -> Result<(), sqlx::Error> {
    let ids: BTreeSet<i64> = items.iter().filter_map(|item| item.actor_id).collect();
    let names: Vec<(i64, Option<String>)> = sqlx::query_as(
        "select user_id, name from monday_user where org_id = $1 and user_id = any ($2)",
    )
    .bind(org_id)
    .bind(ids.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    let names: BTreeMap<i64, String> =
        names.into_iter().filter_map(|(id, name)| Some((id, name?))).collect();
    for item in items {
        let name = |id: i64| names.get(&id).cloned().unwrap_or_else(|| id.to_string());
        item.actor_name = item.actor_id.map(name);
    }
    Ok(())
}
