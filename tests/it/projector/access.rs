//! Each access path of the projector uses its index, and no index is without a query.

use tests::harness::Projection;

use super::setup;

const FILL: &str = "
insert into lead_fact (org_id, board_id, item_id, name, assigned_user_id, entered_at, entered_source,
    first_touch_at, state, closed_won_at, closed_by_user_id, lifecycle, last_event_at, last_seq, fold_state)
select 'org' || n % 10, n % 4, n, 'Lead ' || n, n % 500, now() - n % 900 * interval '1 hour', 'created',
    now() - n % 800 * interval '1 hour', 'won', now() - n % 700 * interval '1 hour', n % 500, 'active',
    now(), n, ''
from generate_series(1, 100000) as n";

/// A read that the projector or query-api makes, and the index that serves it.
const PATHS: &[(&str, &str)] = &[
    (
        "select item_id from lead_fact where org_id = 'org1' and assigned_user_id = any ('{1, 11}')
             and entered_at > now() - interval '7 days' and lifecycle <> 'deleted'",
        "lead_fact_agent_entered",
    ),
    (
        "select item_id from lead_fact where org_id = 'org1' and closed_by_user_id = any ('{1, 11}')
             and closed_won_at > now() - interval '7 days' and lifecycle <> 'deleted'",
        "lead_fact_agent_closed_won",
    ),
    (
        "select item_id from lead_fact where org_id = 'org1' and entered_at > now() - interval '1 day'",
        "lead_fact_entered",
    ),
    (
        "select item_id from lead_fact where org_id = 'org1' and first_touch_at > now() - interval '1 day'",
        "lead_fact_first_touch",
    ),
    (
        "select item_id from lead_fact where org_id = 'org1' and closed_won_at > now() - interval '1 day'",
        "lead_fact_closed_won",
    ),
    (
        "select fold_state from unnest('{org1}'::text[], '{1}'::bigint[], '{11}'::bigint[])
             as wanted (org_id, board_id, item_id) join lead_fact using (org_id, board_id, item_id)",
        "lead_fact_pkey",
    ),
    (
        "select item_id from lead_fact where org_id = 'org1' and search_form(name) like '%ead 4321%'",
        "lead_fact_name_trigram",
    ),
    (
        "select item_id from lead_fact where org_id = 'org1' and search_form(name) = 'lead 4321'",
        "lead_fact_name_prefix",
    ),
];

#[tokio::test]
async fn each_access_path_uses_its_index_and_no_index_is_without_a_path() {
    let projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let pool = &projection.ground.database.pool;
    sqlx::query(FILL).execute(pool).await.unwrap();
    sqlx::query("analyze lead_fact").execute(pool).await.unwrap();
    for (query, index) in PATHS {
        let explain = sqlx::AssertSqlSafe(format!("explain {query}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(pool).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query}\ndoes not use {index}:\n{plan}");
        assert!(!plan.contains("Seq Scan on lead_fact"), "{plan}");
    }
    let indexes: Vec<String> =
        sqlx::query_scalar("select indexname::text from pg_indexes where tablename = 'lead_fact'")
            .fetch_all(pool)
            .await
            .unwrap();
    for index in indexes {
        assert!(PATHS.iter().any(|(_, named)| *named == index), "no path uses {index}");
    }
}
