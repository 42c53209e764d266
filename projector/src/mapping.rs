//! What the columns and labels of a board mean. Applied by the projection, not by ingest: a wrong
//! mapping is repaired by a rebuild from the stream.

use std::{collections::HashMap, sync::Arc};

use leadpulse_service::config::{Board, Config};

/// The mapped boards of all orgs.
#[derive(Debug, Clone, Default)]
pub struct Mapping {
    boards: HashMap<String, HashMap<i64, Arc<Board>>>,
}

impl Mapping {
    pub fn of(config: &Config) -> Self {
        let boards = config.orgs.iter().map(|org| {
            let boards = org.boards.iter().map(|board| (board.id, Arc::new(board.clone())));
            (org.id.clone(), boards.collect())
        });
        Self { boards: boards.collect() }
    }

    /// The mapping of a board; none if its events make no row.
    pub fn board(&self, org_id: &str, board_id: i64) -> Option<&Arc<Board>> {
        self.boards.get(org_id)?.get(&board_id)
    }

    pub fn knows_org(&self, org_id: &str) -> bool {
        self.boards.contains_key(org_id)
    }
}
