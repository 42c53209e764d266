//! LeadFact, row by row and field by field.

use std::collections::HashSet;

use anyhow::Result;
use futures_util::TryStreamExt;
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use super::{Difference, Ground, Verdict};
use crate::{
    event::LeadKey,
    fold::{LeadRow, LeadState},
    refold::{Pass, bucket_of_lead},
    store::{self, LEAD_COLUMNS},
};

/// Compares the leads of a pass with the rows of its buckets.
pub(super) async fn compare(
    ground: &Ground<'_>,
    snapshot: &mut PgConnection,
    pass: &Pass,
    verdict: &mut Verdict,
) -> Result<()> {
    let query = format!(
        "select {LEAD_COLUMNS} from lead_fact
         where ($1::text is null or org_id = $1) and ($2::bigint is null or board_id = $2)"
    );
    let mut rows = sqlx::query(AssertSqlSafe(query))
        .bind(ground.scope.org.as_deref())
        .bind(ground.scope.board)
        .fetch(snapshot);
    let mut known = HashSet::new();
    while let Some(row) = rows.try_next().await? {
        let key = key_of(&row)?;
        if !pass.buckets.contains(&bucket_of_lead(&key)) {
            continue;
        }
        verdict.leads += 1;
        let meant = pass.leads.get(&key).and_then(|state| {
            let board = ground.tools.mapping.board(&key.org_id, key.board_id)?;
            Some((state.row(board)?, state))
        });
        match (store::read_lead(&row), meant) {
            (Ok((_, row, bytes)), Some((meant, state))) => {
                compare_row(&key, (&row, &bytes), (&meant, state), verdict);
            }
            (Ok(_), None) => {
                verdict.note(Difference::of_lead(&key, "row", Some("there".into()), None));
            }
            (Err(error), _) => {
                let said = Some(format!("unreadable: {error}"));
                verdict.note(Difference::of_lead(&key, "row", said, None));
            }
        }
        known.insert(key);
    }
    for (key, state) in &pass.leads {
        let board = ground.tools.mapping.board(&key.org_id, key.board_id);
        let has_row = board.is_some_and(|board| state.row(board).is_some());
        if has_row && ground.takes(&key.org_id, key.board_id) && !known.contains(key) {
            verdict.note(Difference::of_lead(key, "row", None, Some("there".into())));
        }
    }
    Ok(())
}

fn key_of(row: &PgRow) -> Result<LeadKey, sqlx::Error> {
    Ok(LeadKey { org_id: row.try_get(0)?, board_id: row.try_get(1)?, item_id: row.try_get(2)? })
}

fn compare_row(
    key: &LeadKey,
    (row, bytes): (&LeadRow, &[u8]),
    (meant, state): (&LeadRow, &LeadState),
    verdict: &mut Verdict,
) {
    // The pattern names every field: one that is added to the row does not compile until it stands here, too.
    macro_rules! fields {
        ($($field:ident),*) => {
            let LeadRow { $($field: _),* } = row;
            $(if row.$field != meant.$field {
                let (table, stream) = (shown(&row.$field), shown(&meant.$field));
                verdict.note(Difference::of_lead(key, stringify!($field), Some(table), Some(stream)));
            })*
        };
    }
    fields!(
        name,
        group_id,
        status_id,
        status_label,
        assigned_user_id,
        assigned_at,
        deal_amount,
        industry,
        next_call_date,
        entered_at,
        entered_source,
        first_touch_at,
        last_activity_at,
        state,
        closed_won_at,
        closed_lost_at,
        closed_by_user_id,
        lifecycle,
        last_event_at,
        last_seq,
        trace_id
    );
    let older = || LeadState::decode(bytes).is_ok_and(|stored| state.is_successor_of(&stored));
    if state.encode() != bytes && older() {
        verdict.older_states += 1;
    } else if state.encode() != bytes {
        let said = |length: usize| Some(format!("{length} bytes"));
        let difference =
            Difference::of_lead(key, "fold_state", said(bytes.len()), said(state.encode().len()));
        verdict.note(difference);
    }
}

/// `Some("x")` is `"x"`, `None` is `null`.
fn shown(value: &impl std::fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.strip_prefix("Some(").and_then(|text| text.strip_suffix(')')) {
        Some(inner) => inner.to_owned(),
        None if text == "None" => "null".to_owned(),
        None => text,
    }
}
