//! `GET /v1/export/leads.csv` and `GET /v1/export/leaderboard.csv`: what the lists have, for spreadsheets.

mod csv;
mod leaderboard;
mod leads;
mod spool;

pub(crate) use leaderboard::LeaderboardCsv;
pub(crate) use leads::leads_csv;

use std::{collections::HashMap, sync::Arc, time::Duration};

use leadpulse_service::config::{Org, Postgres};
use sqlx::PgPool;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{db, problem::Problem};
use spool::{Disk, Reader, Writer};

/// Connections for exports of leads: as many are read at the same time.
const CONNECTIONS: u32 = 3;
/// An export waits this long for its org's turn.
const QUEUE: Duration = Duration::from_secs(2);

/// What exports of leads have for themselves.
pub(crate) struct Exports {
    /// Connections that no dashboard waits for.
    pub(crate) pool: PgPool,
    shares: HashMap<String, Share>,
}

/// What one org may take of it.
struct Share {
    turns: Arc<Semaphore>,
    disk: Disk,
}

impl Exports {
    /// The only org has all of it. Of several none has the last connection, nor more than half of the disk: none
    /// keeps all others waiting.
    pub(crate) fn new(config: &Postgres, mib: u32, orgs: &[Org]) -> Result<Self, sqlx::Error> {
        let config = Postgres { max_connections: CONNECTIONS, ..config.clone() };
        let (turns, parts) = if orgs.len() > 1 { (CONNECTIONS - 1, 2) } else { (CONNECTIONS, 1) };
        let disk = Disk::shares(mib, parts);
        let share = |org: &Org| {
            let turns = Arc::new(Semaphore::new(turns as usize));
            (org.id.clone(), Share { turns, disk: disk() })
        };
        Ok(Self { pool: db::pool(&config)?, shares: orgs.iter().map(share).collect() })
    }

    /// A turn to read, until it is dropped, and a file for what is read.
    async fn begin(&self, org: &str) -> Result<(OwnedSemaphorePermit, Writer, Reader), Problem> {
        let share = self.shares.get(org).ok_or(Problem::NotFound)?;
        let turn = timeout(QUEUE, Arc::clone(&share.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Problem::Unavailable) };
        let (writer, reader) = share.disk.file()?;
        Ok((turn, writer, reader))
    }
}
