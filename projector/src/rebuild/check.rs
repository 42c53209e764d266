//! Before anything is caught up, the new table is read back whole: exactly the leads that were folded,
//! and every field of every row as its state says under the mapping of today.

use anyhow::{Result, ensure};
use futures_util::TryStreamExt;
use sqlx::AssertSqlSafe;

use super::{Phase, Rebuild, Rebuilder, fill::checksum, ledger};
use crate::{
    fold::LeadState,
    store::{self, LEAD_COLUMNS},
};

/// Between two words to the operator.
const STEP: i64 = 10_000;

pub(super) async fn check(tool: &Rebuilder, rebuild: &mut Rebuild) -> Result<()> {
    let query = format!("select {LEAD_COLUMNS} from lead_fact");
    let mut connection = tool.shadow.acquire().await?;
    let mut rows = sqlx::query(AssertSqlSafe(query)).fetch(&mut *connection);
    let (mut count, mut sum) = (0_i64, 0_i64);
    while let Some(row) = rows.try_next().await? {
        let (key, row, bytes) = store::read_lead(&row)?;
        let state = LeadState::decode(&bytes)?;
        let board = tool.mapping.board(&key.org_id, key.board_id);
        let meant = board.and_then(|board| state.row(board));
        ensure!(
            meant.as_ref() == Some(&row),
            "the new row of lead {} on board {} of {} is not what was folded",
            key.item_id,
            key.board_id,
            key.org_id
        );
        count += 1;
        sum = sum.wrapping_add(checksum(&key, &bytes));
        if count % STEP == 0 {
            (tool.report)("checking", u64::try_from(count)?, u64::try_from(rebuild.leads)?);
        }
    }
    drop(rows);
    ensure!(
        (count, sum) == (rebuild.leads, rebuild.checksum),
        "the new table has {count} leads with checksum {sum:x}; {} with {:x} were folded: \
         `projector rebuild abort`, and start again",
        rebuild.leads,
        rebuild.checksum
    );
    crash_point!("rebuild-checked");
    ledger::enter(&tool.live, rebuild, Phase::CatchingUp).await
}
