//! What the columns and labels of a board mean. Applied by the projection, not by ingest: a wrong
//! mapping is repaired by a rebuild from the stream.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::Arc,
};

use leadpulse_service::config::{Board, Config, Labels};
use sha2::{Digest, Sha256};

use crate::fold;

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

    /// The same for every mapping that gives the same rows: names of boards and the order of labels do
    /// not count; the version of the fold does.
    pub fn hash(&self) -> String {
        let mut text = format!("fold {}\n", fold::VERSION);
        let sorted: BTreeMap<_, _> = self.boards.iter().collect();
        for (org_id, boards) in sorted {
            let sorted: BTreeMap<_, _> = boards.iter().collect();
            for (board_id, board) in sorted {
                let columns = &board.columns;
                let named = [
                    &columns.owner,
                    &columns.status,
                    &columns.amount,
                    &columns.industry,
                    &columns.next_call,
                ];
                let labels = [&board.contacted, &board.won, &board.lost].map(canonical);
                // Writing to a string can't fail.
                let _ = writeln!(text, "{org_id} {board_id} {named:?} {labels:?}");
            }
        }
        let digest = Sha256::digest(text);
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn canonical(labels: &Labels) -> (Vec<i64>, Vec<String>) {
    let mut labels = labels.clone();
    labels.ids.sort_unstable();
    labels.texts.sort_unstable();
    (labels.ids, labels.texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(board: &str) -> String {
        let text = format!("[[orgs]]\nid = \"demo\"\n[[orgs.boards]]\nid = 1\n{board}");
        Mapping::of(&Config::parse("test", &text, &|_| None).unwrap()).hash()
    }

    #[test]
    fn the_hash_changes_with_what_changes_a_row_and_with_nothing_else() {
        let known = hash("name = \"a\"\nwon = [1, 2]");
        assert_eq!(known, hash("name = \"b\"\nwon = [2, 1]"));
        assert_ne!(known, hash("won = [1]\nlost = [2]"));
        assert_ne!(known, hash("won = [1, 2]\ncolumns = { owner = \"person\" }"));
    }
}
