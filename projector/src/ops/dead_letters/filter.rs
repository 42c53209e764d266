//! Which letters are meant, as an operator says it and as SQL does.

use clap::Args;
use serde::Serialize;

/// Which letters are meant. What is not named is all.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct Filter {
    /// Of this org.
    #[arg(long)]
    pub org: Option<String>,
    /// Of this board.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub board: Option<i64>,
    /// Of this item.
    #[arg(long = "lead", value_name = "ITEM", allow_hyphen_values = true)]
    pub item: Option<i64>,
    /// Of this kind of event, such as `update_column_value`.
    #[arg(long)]
    pub kind: Option<String>,
    /// With these words in the error.
    #[arg(long, value_name = "WORDS")]
    pub error: Option<String>,
    /// With this sequence in the present stream; repeatable.
    #[arg(long, value_name = "SEQ")]
    pub seq: Vec<i64>,
    /// Of an earlier stream, which was recreated since.
    #[arg(long)]
    pub earlier: bool,
}

impl Filter {
    /// Does it leave anything out?
    pub fn narrows(&self) -> bool {
        let named = [&self.org, &self.kind, &self.error].into_iter().any(Option::is_some);
        named || self.board.is_some() || self.item.is_some() || !self.seq.is_empty() || self.earlier
    }
}

/// A statement about the waiting letters that a [`Filter`] means; binds $1 to $8.
macro_rules! waiting {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " projection = $1 and resolved_at is null and ($2::text is null or org_id = $2)
              and ($3::bigint is null or board_id = $3) and ($4::bigint is null or item_id = $4)
              and ($5::text is null or kind = $5)
              and ($6::text is null or position(lower($6) in lower(reason)) > 0)
              and (cardinality($7::bigint[]) = 0 or seq = any ($7))
              and case when $8 or cardinality($7::bigint[]) > 0 then $8 = (stream_created_at is distinct from (
                      select min(stream_created_at) from checkpoint where projection = $1)) else true end ",
            $after
        )
    };
}
/// Binds what [`waiting`] names.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {
        $query
            .bind($crate::store::PROJECTION)
            .bind(&$filter.org)
            .bind($filter.board)
            .bind($filter.item)
            .bind(&$filter.kind)
            .bind(&$filter.error)
            .bind(&$filter.seq)
            .bind($filter.earlier)
    };
}
pub(super) use {filtered, waiting};
