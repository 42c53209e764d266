//! The leaderboard as a table.

use serde_json::json;

use super::csv;
use crate::{
    agents::Leaderboard,
    auth::{Caller, Scope},
    cache::Lives,
    db::Snapshot,
    params::Params,
    read::{Context, Loaded, NotLoaded, Read},
};

const COLUMNS: [&str; 22] = [
    "rank",
    "agent_id",
    "agent_name",
    "window_days",
    "assigned_count",
    "touched_count",
    "cohort_won_count",
    "conversion_rate",
    "closed_won_count",
    "period_conversion_rate",
    "deals_amount_sum",
    "deals_amount_count",
    "avg_deal_size",
    "median_response_seconds",
    "median_time_to_close_seconds",
    "time_to_close_count",
    "hot_deals_count",
    "is_hot",
    "last_win_at",
    "last_activity_at",
    "burnout_score",
    "active_leads",
];

pub(crate) struct LeaderboardCsv {
    board: Leaderboard,
    bom: bool,
}

impl Read for LeaderboardCsv {
    const FAMILY: &'static str = "leaderboard.csv";
    const SCOPE: Scope = Scope::Export;
    const ALSO: Option<Scope> = Some(Scope::Metrics);
    const COST: u32 = 20;
    const CONTENT_TYPE: &'static str = "text/csv; charset=utf-8";

    fn parse(params: &mut Params, caller: &Caller) -> Self {
        Self {
            bom: params.choice("bom", &[("true", true), ("false", false)], false),
            board: Leaderboard::parse(params, caller),
        }
    }

    async fn load(&self, context: &Context<'_>, from: &mut Snapshot) -> Result<Loaded, NotLoaded> {
        let rows = self.board.rows(context, from).await?;
        let mut text = String::from(if self.bom { csv::BOM } else { "" });
        text.push_str(&csv::header(&COLUMNS));
        for (row, rank) in self.board.ranked(&rows).into_iter().zip(1..) {
            let mut value = serde_json::to_value(row).unwrap_or_default();
            value["rank"] = json!(rank);
            csv::row(&mut text, &COLUMNS, &["agent_name"], &value);
        }
        Ok(Loaded::text(text, Lives::Moment))
    }
}
