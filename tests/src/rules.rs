//! What a test org is configured with: the half of `leadpulse.toml` that decides what its events mean.

use std::fmt::Write as _;

/// A status label as a board names it: by its id or, second best, by its exact text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Label {
    Id(i64),
    Text(String),
}

/// A mapped board: which column is what, and which labels count.
#[derive(Debug, Clone, Default)]
pub struct Board {
    pub id: i64,
    pub owner: Option<String>,
    pub status: Option<String>,
    pub amount: Option<String>,
    pub industry: Option<String>,
    pub next_call: Option<String>,
    pub contacted: Vec<Label>,
    pub won: Vec<Label>,
    pub lost: Vec<Label>,
}

impl Board {
    /// A board with monday.com's usual column ids.
    pub fn usual(id: i64) -> Self {
        Self {
            id,
            owner: Some("person".into()),
            status: Some("status".into()),
            amount: Some("numbers".into()),
            industry: Some("dropdown".into()),
            next_call: Some("date".into()),
            contacted: vec![Label::Id(1)],
            won: vec![Label::Id(2), Label::Text("Won".into())],
            lost: vec![Label::Id(3)],
        }
    }
}

/// What an org says about its leads and agents.
#[derive(Debug, Clone)]
pub struct Rules {
    pub boards: Vec<Board>,
    pub windows_days: Vec<u32>,
    pub hot_window_hours: u32,
    pub hot_min_deals: u32,
}

impl Default for Rules {
    fn default() -> Self {
        let texts = Board {
            id: 9002,
            status: Some("color_mk".into()),
            industry: Some("text_1".into()),
            contacted: vec![Label::Text("בטיפול".into())],
            won: vec![Label::Text("נסגר 🎉".into()), Label::Id(0)],
            lost: vec![Label::Text("Lost".into()), Label::Id(4)],
            ..Board::usual(9002)
        };
        Self {
            boards: vec![Board::usual(9001), texts],
            windows_days: vec![7, 30, 90],
            hot_window_hours: 72,
            hot_min_deals: 3,
        }
    }
}

impl Rules {
    pub fn board(&self, id: i64) -> Option<&Board> {
        self.boards.iter().find(|board| board.id == id)
    }

    /// The org's part of `leadpulse.toml`, without its sources.
    pub fn to_toml(&self) -> String {
        let mut toml = format!(
            "windows = {:?}\nhot = {{ window_hours = {}, min_deals = {} }}\n",
            self.windows_days, self.hot_window_hours, self.hot_min_deals
        );
        for board in &self.boards {
            let columns: Vec<String> = [
                ("owner", &board.owner),
                ("status", &board.status),
                ("amount", &board.amount),
                ("industry", &board.industry),
                ("next_call", &board.next_call),
            ]
            .iter()
            .filter_map(|(role, column)| column.as_ref().map(|id| format!("{role} = {id:?}")))
            .collect();
            let _ = write!(
                toml,
                "\n[[orgs.boards]]\nid = {}\nname = \"Board {}\"\ncolumns = {{ {} }}\ncontacted = {}\nwon = {}\nlost = {}\n",
                board.id,
                board.id,
                columns.join(", "),
                labels(&board.contacted),
                labels(&board.won),
                labels(&board.lost),
            );
        }
        toml
    }
}

fn labels(labels: &[Label]) -> String {
    let texts: Vec<String> = labels
        .iter()
        .map(|label| match label {
            Label::Id(id) => id.to_string(),
            Label::Text(text) => format!("\"{text}\""),
        })
        .collect();
    format!("[{}]", texts.join(", "))
}
