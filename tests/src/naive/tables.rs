//! The read models' tables, read back into the naive types.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use sqlx::{Row, postgres::PgRow};

use super::{AgentMetrics, EnteredSource, Industry, Lead, Lifecycle, Median, Micros, State};

pub fn lead(row: &PgRow) -> Lead {
    let text = |column: &str| -> String { row.get(column) };
    Lead {
        board_id: row.get("board_id"),
        item_id: row.get("item_id"),
        name: row.get("name"),
        group_id: row.get("group_id"),
        status_id: row.get("status_id"),
        status_label: row.get("status_label"),
        assigned_user_id: row.get("assigned_user_id"),
        assigned_at: micros(row, "assigned_at"),
        deal_amount: row.get("deal_amount"),
        industry: row.get("industry"),
        next_call_date: row.get("next_call_date"),
        entered_at: micros(row, "entered_at").expect("never null"),
        entered_source: match text("entered_source").as_str() {
            "api" => EnteredSource::Api,
            "created" => EnteredSource::Created,
            _ => EnteredSource::FirstSeen,
        },
        first_touch_at: micros(row, "first_touch_at"),
        last_activity_at: micros(row, "last_activity_at"),
        state: match text("state").as_str() {
            "won" => State::Won,
            "lost" => State::Lost,
            _ => State::Open,
        },
        closed_won_at: micros(row, "closed_won_at"),
        closed_lost_at: micros(row, "closed_lost_at"),
        closed_by_user_id: row.get("closed_by_user_id"),
        lifecycle: match text("lifecycle").as_str() {
            "archived" => Lifecycle::Archived,
            "deleted" => Lifecycle::Deleted,
            _ => Lifecycle::Active,
        },
        last_event_at: micros(row, "last_event_at").expect("never null"),
        last_seq: u64::try_from(row.get::<i64, _>("last_seq")).expect("a sequence"),
    }
}

pub fn metrics(row: &PgRow) -> AgentMetrics {
    let median = |column: &str, n: usize| Median {
        n,
        #[expect(
            clippy::cast_possible_truncation,
            reason = "spans of microseconds, exact in a double"
        )]
        twice_micros: row
            .get::<Option<f64>, _>(column)
            .map(|seconds| (seconds * 2_000_000.0).round() as i64),
    };
    let touched_count = count(row, "touched_count");
    AgentMetrics {
        agent_id: row.get("agent_id"),
        window_days: u32::try_from(row.get::<i32, _>("window_days")).expect("days"),
        assigned_count: count(row, "assigned_count"),
        touched_count,
        cohort_won_count: count(row, "cohort_won_count"),
        conversion_rate: row.get("conversion_rate"),
        closed_won_count: count(row, "closed_won_count"),
        period_conversion_rate: row.get("period_conversion_rate"),
        deals_amount_sum: row.get("deals_amount_sum"),
        deals_amount_count: count(row, "deals_amount_count"),
        avg_deal_size: row.get("avg_deal_size"),
        median_response: median("median_response_seconds", touched_count),
        median_time_to_close: median(
            "median_time_to_close_seconds",
            count(row, "time_to_close_count"),
        ),
        hot_deals_count: count(row, "hot_deals_count"),
        is_hot: row.get("is_hot"),
        last_win_at: micros(row, "last_win_at"),
        last_activity_at: micros(row, "last_activity_at"),
        active_leads: count(row, "active_leads"),
        industries: industries(&row.get("industries")),
    }
}

fn industries(json: &serde_json::Value) -> BTreeMap<String, Industry> {
    let number = |value: &serde_json::Value| {
        usize::try_from(value.as_u64().expect("a count")).expect("small")
    };
    let entries = json.as_object().expect("an object").iter().map(|(name, figures)| {
        let industry = Industry {
            assigned: number(&figures["assigned"]),
            cohort_won: number(&figures["cohort_won"]),
            closed_won: number(&figures["closed_won"]),
            amount_sum: figures["amount_sum"]
                .as_str()
                .expect("a text")
                .parse::<Decimal>()
                .expect("money"),
        };
        (name.clone(), industry)
    });
    entries.collect()
}

fn micros(row: &PgRow, column: &str) -> Option<Micros> {
    row.get::<Option<DateTime<Utc>>, _>(column).map(|at| at.timestamp_micros())
}

fn count(row: &PgRow, column: &str) -> usize {
    usize::try_from(row.get::<i64, _>(column)).expect("a count")
}
