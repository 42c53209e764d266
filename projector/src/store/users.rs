//! The users of an org: the last `user_snapshot` wins (spec.md §4).

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use sqlx::PgConnection;

use super::leads::signed;
use crate::event::UserEvent;

/// Writes the last snapshot of each user by one statement, unless a later one stands there already.
pub async fn upsert_users(
    connection: &mut PgConnection,
    events: &[UserEvent],
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
