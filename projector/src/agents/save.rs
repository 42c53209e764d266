//! Writing AgentMetrics: one statement for all rows, one for the agents that are none any more.

use chrono::{DateTime, Utc};
use leadpulse_nats::instant;
use sqlx::PgConnection;

use super::{figures::Figures, lead::Totals};

pub(super) struct Row {
    pub(super) agent_id: i64,
    pub(super) days: u32,
    pub(super) totals: Totals,
    pub(super) figures: Figures,
}

pub(super) async fn replace(
    connection: &mut PgConnection,
    org_id: &str,
    rows: &[Row],
    gone: &[i64],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if !gone.is_empty() {
        sqlx::query("delete from agent_metrics where org_id = $1 and agent_id = any ($2)")
            .bind(org_id)
            .bind(gone)
            .execute(&mut *connection)
            .await?;
    }
    if rows.is_empty() {
        return Ok(());
    }
    macro_rules! figure {
        ($field:ident) => {
            rows.iter().map(|row| row.figures.$field.clone()).collect::<Vec<_>>()
        };
    }
    let at = |micros: Option<i64>| micros.and_then(instant::from_micros);
    sqlx::query(UPSERT)
        .bind(org_id)
        .bind(now)
        .bind(rows.iter().map(|row| row.agent_id).collect::<Vec<_>>())
        .bind(
            rows.iter().map(|row| i32::try_from(row.days).unwrap_or(i32::MAX)).collect::<Vec<_>>(),
        )
        .bind(figure!(assigned_count))
        .bind(figure!(touched_count))
        .bind(figure!(cohort_won_count))
        .bind(figure!(conversion_rate))
        .bind(figure!(closed_won_count))
        .bind(figure!(period_conversion_rate))
        .bind(figure!(deals_amount_sum))
        .bind(figure!(deals_amount_count))
        .bind(figure!(avg_deal_size))
        .bind(figure!(median_response_seconds))
        .bind(figure!(median_time_to_close_seconds))
        .bind(figure!(time_to_close_count))
        .bind(figure!(hot_deals_count))
        .bind(figure!(is_hot))
        .bind(rows.iter().map(|row| at(row.totals.last_win_at)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| at(row.totals.last_activity_at)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.totals.active_leads).collect::<Vec<_>>())
        .bind(figure!(industries))
        .bind(rows.iter().map(|row| at(row.figures.valid_until)).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

const UPSERT: &str = "
insert into agent_metrics (
    org_id, computed_at, agent_id, window_days, assigned_count, touched_count, cohort_won_count,
    conversion_rate, closed_won_count, period_conversion_rate, deals_amount_sum, deals_amount_count,
    avg_deal_size, median_response_seconds, median_time_to_close_seconds, time_to_close_count,
    hot_deals_count, is_hot, last_win_at, last_activity_at, active_leads, industries, valid_until)
select $1, $2, * from unnest(
    $3::bigint[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[], $8::double precision[],
    $9::bigint[], $10::double precision[], $11::numeric[], $12::bigint[], $13::numeric[],
    $14::double precision[], $15::double precision[], $16::bigint[], $17::bigint[], $18::boolean[],
    $19::timestamptz[], $20::timestamptz[], $21::bigint[], $22::jsonb[], $23::timestamptz[])
on conflict (org_id, agent_id, window_days) do update set
    computed_at = excluded.computed_at, assigned_count = excluded.assigned_count,
    touched_count = excluded.touched_count, cohort_won_count = excluded.cohort_won_count,
    conversion_rate = excluded.conversion_rate, closed_won_count = excluded.closed_won_count,
    period_conversion_rate = excluded.period_conversion_rate,
    deals_amount_sum = excluded.deals_amount_sum, deals_amount_count = excluded.deals_amount_count,
    avg_deal_size = excluded.avg_deal_size, median_response_seconds = excluded.median_response_seconds,
    median_time_to_close_seconds = excluded.median_time_to_close_seconds,
    time_to_close_count = excluded.time_to_close_count, hot_deals_count = excluded.hot_deals_count,
    is_hot = excluded.is_hot, last_win_at = excluded.last_win_at,
    last_activity_at = excluded.last_activity_at, active_leads = excluded.active_leads,
    industries = excluded.industries, valid_until = excluded.valid_until";
