//! The bulk of a rebuild: the stream folded in memory, pass by pass, and copied; then the indexes.

use anyhow::{Context as _, Result, ensure};
use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::{
    Phase, Rebuild, Rebuilder,
    keeper::{BETWEEN_COPIES, GIVE_WAY, Keeper},
    ledger::{self, Copied},
    shadow,
};
use crate::{
    event::LeadKey,
    fold::{LeadRow, LeadState},
    lane::BUCKETS,
    reader::{
        lead::LeadHistory,
        range::{Bounds, Select},
    },
    refold::{Pass, Refold},
    store::{self, LeftOut, Parked, Position, WriteError},
};

/// Rows of one COPY.
const ROWS: usize = 20_000;

/// Folds what is not folded yet, and goes on to the indexes.
pub(super) async fn fold(tool: &Rebuilder, rebuild: &mut Rebuild, keeper: &Keeper) -> Result<()> {
    if rebuild.next_bucket == 0 {
        let mut tx = store::begin(&tool.shadow).await?;
        ledger::hold(&mut tx, rebuild).await?;
        shadow::create(&mut tx, &tool.seen, rebuild.target_seq).await?;
        tx.commit().await?;
    }
    // The same in each pass and after each crash: what was skipped when the tables were made.
    let left_out = LeftOut::load(&mut *tool.shadow.acquire().await?).await?.but_for_waiting();
    let refold = Refold {
        stream: &tool.stream,
        identity: &tool.seen.identity,
        from: u64::try_from(rebuild.from_seq)?,
        position: Position { lanes: vec![u64::try_from(rebuild.target_seq)?] },
        mapping: &tool.mapping,
        left_out: &left_out,
        select: Select::default(),
        buckets: 0..BUCKETS,
        memory: usize::try_from(tool.config.projector.rebuild_memory_mib)? << 20,
    };
    while u64::try_from(rebuild.next_bucket)? < BUCKETS {
        let pass = refold.pass(u64::try_from(rebuild.next_bucket)?, keeper).await?;
        write(tool, rebuild, &refold, pass, keeper).await?;
        crash_point!("rebuild-pass");
    }
    ledger::enter(&tool.live, rebuild, Phase::Indexing).await
}

/// One pass into the tables, in one transaction with the record of it.
async fn write(
    tool: &Rebuilder,
    rebuild: &mut Rebuild,
    refold: &Refold<'_>,
    mut pass: Pass,
    keeper: &Keeper,
) -> Result<()> {
    let mut tx = store::begin(&tool.shadow).await?;
    ledger::hold(&mut tx, rebuild).await?;
    // A refused lead's history is read from the stream in between.
    tx.execute("set local idle_in_transaction_session_timeout = '60s'").await?;
    let mut copied = Copied {
        next_bucket: pass.buckets.end,
        leads: 0,
        checksum: 0,
        peak_bytes: pass.peak_bytes,
    };
    let total = u64::try_from(pass.leads.len())?;
    let leads = std::mem::take(&mut pass.leads);
    let mut leads = leads.iter();
    loop {
        let rows: Vec<_> =
            leads.by_ref().filter_map(|(key, state)| row(tool, key, state)).take(ROWS).collect();
        if rows.is_empty() {
            break;
        }
        let (written, parked) = copy(tool, refold, &mut tx, rows).await?;
        copied.leads += written.len();
        copied.checksum = written.iter().copied().fold(copied.checksum, i64::wrapping_add);
        pass.unreadable.extend(parked);
        (tool.report)("copying", u64::try_from(copied.leads)?, total);
        keeper.give_way(BETWEEN_COPIES).await;
    }
    let users: Vec<_> = pass.users.into_values().map(|(_, user)| user).collect();
    store::upsert_users(&mut tx, &users).await?;
    store::park(&mut tx, &pass.unreadable).await?;
    store::settle_returned(&mut tx, &pass.returned).await?;
    *rebuild = ledger::copied(&mut tx, rebuild, copied).await?;
    crash_point!("rebuild-copied");
    tx.commit().await?;
    Ok(())
}

fn row<'l>(
    tool: &Rebuilder,
    key: &'l LeadKey,
    state: &LeadState,
) -> Option<(&'l LeadKey, LeadRow, Vec<u8>)> {
    let board = tool.mapping.board(&key.org_id, key.board_id)?;
    Some((key, state.row(board)?, state.encode()))
}

type Rows<'l> = Vec<(&'l LeadKey, LeadRow, Vec<u8>)>;

/// Copies rows; what Postgres refuses is found by halves and parked, as a lane would. Gives the
/// checksums of what was written.
async fn copy(
    tool: &Rebuilder,
    refold: &Refold<'_>,
    connection: &mut PgConnection,
    rows: Rows<'_>,
) -> Result<(Vec<i64>, Vec<Parked>)> {
    let mut written = Vec::with_capacity(rows.len());
    let mut parked = Vec::new();
    let mut waiting = vec![rows];
    while let Some(mut rows) = waiting.pop() {
        match try_copy(connection, &rows).await {
            Ok(()) => written.extend(rows.iter().map(|(key, _, state)| checksum(key, state))),
            Err(WriteError::Permanent(cause)) => match <[_; 1]>::try_from(rows) {
                Ok([(key, ..)]) => {
                    let (row, letters) =
                        park(tool, refold, connection, key, &cause.to_string()).await?;
                    written.extend(row);
                    parked.extend(letters);
                    ensure!(
                        parked.len()
                            < usize::try_from(tool.config.projector.parked_leads_limit)? * 10,
                        "too many leads are refused ({cause}): mend the cause and start again"
                    );
                }
                Err(whole) => {
                    rows = whole;
                    let half = rows.split_off(rows.len() / 2);
                    waiting.extend([rows, half]);
                }
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok((written, parked))
}

/// A refused COPY must not end the transaction around it.
async fn try_copy(connection: &mut PgConnection, rows: &Rows<'_>) -> Result<(), WriteError> {
    connection.execute("savepoint copying").await?;
    match store::copy_leads(connection, rows).await.map_err(WriteError::from) {
        Ok(()) => {
            connection.execute("release savepoint copying").await?;
            Ok(())
        }
        Err(error) => {
            connection.execute("rollback to savepoint copying").await?;
            Err(error)
        }
    }
}

/// A lead that Postgres refuses: its events up to the first refused one count, the others wait in
/// the dead letters.
async fn park(
    tool: &Rebuilder,
    refold: &Refold<'_>,
    connection: &mut PgConnection,
    key: &LeadKey,
    reason: &str,
) -> Result<(Option<i64>, Vec<Parked>)> {
    let history = LeadHistory::read(
        refold.stream,
        refold.identity,
        Bounds { from: refold.from, to: refold.position.farthest() },
        key,
        &tool.mapping,
        refold.left_out,
    )
    .await?;
    let board = tool.mapping.board(&key.org_id, key.board_id).context("the board is mapped")?;
    let (mut state, mut good) = (LeadState::default(), 0);
    let mut last = None;
    for (event, _) in &history.events {
        state.apply(event);
        let Some(row) = state.row(board) else { continue };
        connection.execute("savepoint trial").await?;
        let trial = vec![(key, row, state.encode())];
        let outcome = try_copy(connection, &trial).await;
        connection.execute("rollback to savepoint trial").await?;
        match outcome {
            Ok(()) => good += 1,
            Err(WriteError::Permanent(_)) => break,
            Err(error) => return Err(error.into()),
        }
        last = trial.into_iter().next();
    }
    let mut written = None;
    if let Some((key, row, state)) = last {
        written = Some(checksum(key, &state));
        try_copy(connection, &vec![(key, row, state)]).await?;
    }
    let letters = history.events.into_iter().skip(good);
    let letters = letters.map(|(_, delivery)| Parked::of(delivery, reason.to_owned())).collect();
    Ok((written, letters))
}

/// FNV-1a over key and state. Summed up it says whether a table has exactly these leads.
pub(super) fn checksum(key: &LeadKey, state: &[u8]) -> i64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let ids = [key.board_id, key.item_id].into_iter().flat_map(i64::to_le_bytes);
    for byte in key.org_id.bytes().chain(ids).chain(state.iter().copied()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.cast_signed()
}

/// Makes the indexes that are not there yet, each under the name that it has on the live tables; then
/// all agents are marked, so that the catch-up computes their figures.
pub(super) async fn index(tool: &Rebuilder, rebuild: &mut Rebuild, keeper: &Keeper) -> Result<()> {
    let missing = shadow::missing_indexes(&mut *tool.live.acquire().await?, &["lead_fact"]).await?;
    let total = u64::try_from(missing.len())?;
    for (done, statement) in (0..).zip(missing) {
        keeper.give_way(GIVE_WAY).await;
        (tool.report)("indexing", done, total);
        let mut tx = store::begin(&tool.shadow).await?;
        ledger::hold(&mut tx, rebuild).await?;
        // Bounded like the rest of the rebuild: the memory is Postgres', but it is one machine's.
        tx.execute("set local maintenance_work_mem = '256MB'").await?;
        tx.execute(AssertSqlSafe(statement)).await?;
        tx.commit().await?;
        crash_point!("rebuild-index");
    }
    shadow::analyse(&tool.shadow, &["lead_fact"]).await?;
    (tool.report)("indexing", total, total);
    let mut tx = store::begin(&tool.shadow).await?;
    ledger::hold(&mut tx, rebuild).await?;
    sqlx::query(
        "insert into agent_dirty (org_id, agent_id, seq)
         select org_id, agent_id, 9223372036854775807 from (
             select org_id, assigned_user_id as agent_id from lead_fact
             union select org_id, closed_by_user_id from lead_fact) as agent
         where agent_id is not null",
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    ledger::enter(&tool.live, rebuild, Phase::Checking).await
}
