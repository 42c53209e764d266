//! The users of an org: the last `user_snapshot` wins (spec.md §4).

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::leads::signed;
use crate::event::UserEvent;

/// Writes the last snapshot of each user by one statement, unless a later one stands there already.
pub async fn upsert_users<'e>(
    connection: &mut PgConnection,
    events: impl IntoIterator<Item = &'e UserEvent>,
) -> Result<(), sqlx::Error> {
    let mut last = HashMap::<(&str, i64), &UserEvent>::new();
    for event in events {
        let known = last.entry((&event.org_id, event.user_id)).or_insert(event);
        if (known.occurred_at, &known.event_id) < (event.occurred_at, &event.event_id) {
            *known = event;
        }
    }
    if last.is_empty() {
        return Ok(());
    }
    let users: Vec<&UserEvent> = last.into_values().collect();
    let at = |user: &&UserEvent| -> DateTime<Utc> {
        instant::from_micros(user.occurred_at).unwrap_or_default()
    };
    sqlx::query(
        r#"insert into monday_user (org_id, user_id, name, email, kind, status, occurred_at, event_id, last_seq)
         select * from unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[],
             $7::timestamptz[], $8::text[], $9::bigint[])
         on conflict (org_id, user_id) do update set
             name = excluded.name, email = excluded.email, kind = excluded.kind,
             status = excluded.status, occurred_at = excluded.occurred_at,
             event_id = excluded.event_id, last_seq = excluded.last_seq
         where (monday_user.occurred_at, monday_user.event_id collate "C")
             < (excluded.occurred_at, excluded.event_id collate "C")"#,
    )
    .bind(users.iter().map(|user| user.org_id.as_str()).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.user_id).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.name.as_deref()).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.email.as_deref()).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.kind.as_deref()).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.status.as_deref()).collect::<Vec<_>>())
    .bind(users.iter().map(at).collect::<Vec<_>>())
    .bind(users.iter().map(|user| user.event_id.as_str()).collect::<Vec<_>>())
    .bind(users.iter().map(|user| signed(user.seq)).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// A row of `monday_user` without its key.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct StoredUser {
    name: Option<String>,
    email: Option<String>,
    kind: Option<String>,
    status: Option<String>,
    occurred_at: DateTime<Utc>,
    event_id: String,
}

impl StoredUser {
    /// What a snapshot makes of it.
    pub fn of(event: &UserEvent) -> Self {
        Self {
            name: event.name.clone(),
            email: event.email.clone(),
            kind: event.kind.clone(),
            status: event.status.clone(),
            occurred_at: instant::from_micros(event.occurred_at).unwrap_or_default(),
            event_id: event.event_id.clone(),
        }
    }

    pub fn fields(&self) -> BTreeMap<String, Value> {
        let fields = [
            ("name", json!(self.name)),
            ("email", json!(self.email)),
            ("kind", json!(self.kind)),
            ("status", json!(self.status)),
            ("event_id", json!(self.event_id)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Those of the snapshots than which nothing later is stored, each beside what is.
pub async fn not_later(
    connection: &mut PgConnection,
    events: impl Iterator<Item = UserEvent>,
) -> Result<Vec<(Option<StoredUser>, UserEvent)>, sqlx::Error> {
    let mut found = Vec::new();
    let events: Vec<UserEvent> = events.collect();
    let rows: Vec<(String, i64)> =
        events.iter().map(|event| (event.org_id.clone(), event.user_id)).collect();
    let mut stored = load(connection, &rows).await?;
    for event in events {
        let known = stored.remove(&(event.org_id.clone(), event.user_id));
        let own = StoredUser::of(&event);
        let later = known
            .as_ref()
            .is_some_and(|k| (k.occurred_at, &k.event_id) > (own.occurred_at, &own.event_id));
        if !later {
            found.push((known, event));
        }
    }
    Ok(found)
}

async fn load(
    connection: &mut PgConnection,
    keys: &[(String, i64)],
) -> Result<HashMap<(String, i64), StoredUser>, sqlx::Error> {
    #[derive(sqlx::FromRow)]
    struct Keyed {
        org_id: String,
        user_id: i64,
        #[sqlx(flatten)]
        user: StoredUser,
    }
    let rows: Vec<Keyed> = sqlx::query_as(
        "select org_id, user_id, name, email, kind, status, occurred_at, event_id
         from unnest($1::text[], $2::bigint[]) as wanted (org_id, user_id)
         join monday_user using (org_id, user_id)",
    )
    .bind(keys.iter().map(|key| key.0.as_str()).collect::<Vec<_>>())
    .bind(keys.iter().map(|key| key.1).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.org_id, row.user_id), row.user)).collect())
}

/// Writes these snapshots also where the same one stands there already and was damaged.
pub async fn replace_users(
    connection: &mut PgConnection,
    users: &[(Option<StoredUser>, UserEvent)],
) -> Result<(), sqlx::Error> {
    let events: Vec<UserEvent> = users.iter().map(|(_, event)| event.clone()).collect();
    sqlx::query(
        r#"delete from monday_user using unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[])
             as new (org_id, user_id, occurred_at, event_id)
         where monday_user.org_id = new.org_id and monday_user.user_id = new.user_id
           and (monday_user.occurred_at, monday_user.event_id collate "C")
             <= (new.occurred_at, new.event_id collate "C")"#,
    )
    .bind(events.iter().map(|user| user.org_id.as_str()).collect::<Vec<_>>())
    .bind(events.iter().map(|user| user.user_id).collect::<Vec<_>>())
    .bind(events.iter().map(|user| StoredUser::of(user).occurred_at).collect::<Vec<_>>())
    .bind(events.iter().map(|user| user.event_id.as_str()).collect::<Vec<_>>())
    .execute(&mut *connection)
    .await?;
    upsert_users(connection, &events).await
}
