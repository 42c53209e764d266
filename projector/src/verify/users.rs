//! The users: the last snapshot of each.

use std::collections::BTreeMap;

use anyhow::Result;
use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use sqlx::{FromRow, PgConnection};

use super::{Difference, Ground, Verdict};
use crate::{event::UserEvent, refold::Pass, store::signed};

#[derive(Debug, FromRow)]
struct Row {
    org_id: String,
    user_id: i64,
    name: Option<String>,
    email: Option<String>,
    kind: Option<String>,
    status: Option<String>,
    occurred_at: DateTime<Utc>,
    event_id: String,
    last_seq: i64,
}

#[derive(Debug, Default)]
pub(super) struct Users {
    meant: BTreeMap<(String, i64), UserEvent>,
}

impl Users {
    /// A user's snapshots may stand in different buckets, and so in different passes.
    pub(super) fn add(&mut self, pass: &Pass) {
        for (key, (_, user)) in &pass.users {
            let later = self.meant.get(key).is_none_or(|known| {
                (known.occurred_at, &known.event_id) < (user.occurred_at, &user.event_id)
            });
            if later {
                self.meant.insert(key.clone(), user.clone());
            }
        }
    }

    pub(super) async fn compare(
        mut self,
        ground: &Ground<'_>,
        snapshot: &mut PgConnection,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let query = "select * from monday_user where ($1::text is null or org_id = $1)";
        let rows: Vec<Row> =
            sqlx::query_as(query).bind(ground.scope.org.as_deref()).fetch_all(snapshot).await?;
        for row in rows {
            verdict.users += 1;
            match self.meant.remove(&(row.org_id.clone(), row.user_id)) {
                Some(user) => compare_row(&row, &user, verdict),
                None => note(&row.org_id, row.user_id, "row", Some("there"), None, verdict),
            }
        }
        for (org_id, user_id) in self.meant.keys() {
            note(org_id, *user_id, "row", None, Some("there"), verdict);
        }
        Ok(())
    }
}

fn compare_row(row: &Row, user: &UserEvent, verdict: &mut Verdict) {
    let mut field = |name: &'static str, table: &str, stream: &str| {
        if table != stream {
            note(&row.org_id, row.user_id, name, Some(table), Some(stream), verdict);
        }
    };
    // An address stays out of terminals and logs: that it differs is enough.
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    field("name", &text(&row.name), &text(&user.name));
    field("kind", &text(&row.kind), &text(&user.kind));
    field("status", &text(&row.status), &text(&user.status));
    if row.email != user.email {
        field("email", "another address", "the snapshot's address");
    }
    let at = instant::from_micros(user.occurred_at).unwrap_or_default();
    field("occurred_at", &row.occurred_at.to_rfc3339(), &at.to_rfc3339());
    field("event_id", &row.event_id, &user.event_id);
    field("last_seq", &row.last_seq.to_string(), &signed(user.seq).to_string());
}

fn note(
    org_id: &str,
    user_id: i64,
    field: &'static str,
    table: Option<&str>,
    stream: Option<&str>,
    verdict: &mut Verdict,
) {
    verdict.note(Difference {
        what: "user",
        org_id: org_id.to_owned(),
        key: user_id.to_string(),
        field,
        table: table.map(str::to_owned),
        stream: stream.map(str::to_owned),
        lead: None,
        events: Vec::new(),
        more_events: 0,
    });
}
