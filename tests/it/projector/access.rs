//! Each access path of the projector uses its index, and no index is without a query.

use leadpulse_service::config::Postgres;
use projector::{
    agents::{ASSIGNED, BY_KEY, TAKE_WHOLE, WON},
    event::LeadKey,
    fold::LeadState,
    store,
};
use sqlx::PgPool;
use tests::harness::Projection;

use super::setup;

const FILL: &str = "
insert into lead_fact (org_id, board_id, item_id, name, assigned_user_id, entered_at, entered_source,
    first_touch_at, state, closed_won_at, closed_by_user_id, lifecycle, last_event_at, last_seq, fold_state)
select 'org' || n % 10, n % 4, n, 'Lead ' || n, n % 500, now() - n % 900 * interval '1 hour', 'created',
    now() - n % 800 * interval '1 hour', 'won', now() - n % 700 * interval '1 hour', n % 500, 'active',
    now(), n, $1
from generate_series(1, 100000) as n";

async fn fill(pool: &PgPool) {
    sqlx::query(FILL).bind(LeadState::default().encode()).execute(pool).await.unwrap();
}

/// The key of the lead that `FILL` numbers so.
fn filled(n: i64) -> LeadKey {
    LeadKey { org_id: format!("org{}", n % 10), board_id: n % 4, item_id: n }
}

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
    (
        "select item_id from lead_fact where org_id = 'org1' and last_activity_week is not null
             order by last_activity_week desc, last_activity_at desc limit 50",
        "lead_fact_last_activity",
    ),
];

/// The same on the other tables.
const SMALL_PATHS: &[(&str, &str)] = &[
    (
        "select org_id, agent_id from agent_metrics where valid_until <= now()
             order by valid_until limit 2000",
        "agent_metrics_valid_until",
    ),
    ("select min(valid_until) from agent_metrics", "agent_metrics_valid_until"),
    (
        "select agent_id from agent_metrics where org_id = 'org1' and window_days = 30",
        "agent_metrics_window",
    ),
    (
        "select seq from dead_letter where projection = 'main' and org_id = 'org1' and board_id = 1
             and item_id = 11 and resolved_at is null",
        "dead_letter_parked",
    ),
    (
        "select id from operator_audit where org_id = 'org1' order by id desc limit 20",
        "operator_audit_org",
    ),
    ("select id from agent_dirty where board_id is null order by id", "agent_dirty_whole"),
];

#[tokio::test]
async fn each_access_path_uses_its_index_and_no_index_is_without_a_path() {
    let projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let pool = &projection.ground.database.pool;
    fill(pool).await;
    sqlx::query("analyze lead_fact").execute(pool).await.unwrap();
    for (query, index) in PATHS {
        let explain = sqlx::AssertSqlSafe(format!("explain {query}"));
        let plan: Vec<String> = sqlx::query_scalar(explain).fetch_all(pool).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query}\ndoes not use {index}:\n{plan}");
        assert!(!plan.contains("Seq Scan on lead_fact"), "{plan}");
    }
    // The other tables are small, and Postgres would rather read them whole.
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("set enable_seqscan = off").execute(&mut *connection).await.unwrap();
    for (query, index) in SMALL_PATHS {
        let explain = sqlx::AssertSqlSafe(format!("explain {query}"));
        let plan: Vec<String> =
            sqlx::query_scalar(explain).fetch_all(&mut *connection).await.unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index), "{query}\ndoes not use {index}:\n{plan}");
    }
    // What is unique is there for that.
    let indexes: Vec<String> = sqlx::query_scalar(
        "select indexrelid::regclass::text from pg_index
         join pg_class on pg_class.oid = indrelid
         where relnamespace = 'public'::regnamespace and not indisunique",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert!(indexes.len() > 10, "{indexes:?}");
    for index in indexes {
        let mut paths = PATHS.iter().chain(SMALL_PATHS);
        assert!(paths.any(|(_, named)| *named == index), "no path uses {index}");
    }
}

/// A table that grew since its last `analyze`, as a new one does in its first minutes, on connections that
/// knew it when it was empty.
#[tokio::test]
async fn states_are_read_by_their_keys_whatever_postgres_knows_of_the_table() {
    const KEYS: i64 = 100;
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    projection.projector.kill9();
    let database = &projection.ground.database;
    sqlx::query("alter table lead_fact set (autovacuum_enabled = false)")
        .execute(&database.pool)
        .await
        .unwrap();
    let config = Postgres { url: database.url().into(), max_connections: 1 };
    let pool = store::pool(&config).unwrap();
    let keys: Vec<LeadKey> = (1..=KEYS).map(|n| n * 997).map(filled).collect();
    // After five executions Postgres may keep a plan.
    for _ in 0..10 {
        let mut connection = pool.acquire().await.unwrap();
        assert!(store::load_leads(&mut connection, &keys).await.unwrap().is_empty());
    }
    fill(&database.pool).await;
    let before = blocks(&pool).await;
    let mut connection = pool.acquire().await.unwrap();
    let found = store::load_leads(&mut connection, &keys).await.unwrap();
    drop(connection);
    assert_eq!(found.len(), keys.len());
    let read = blocks(&pool).await - before;
    assert!(read < KEYS * 10, "{read} blocks for {KEYS} leads");
}

#[tokio::test]
async fn the_changed_leads_of_agents_are_read_by_their_keys() {
    let projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let pool = &projection.ground.database.pool;
    fill(pool).await;
    sqlx::query("analyze lead_fact").execute(pool).await.unwrap();
    let keys: Vec<LeadKey> = (1..=1000).map(|n| filled(n * 10)).collect();
    let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain {BY_KEY}")))
        .bind("org0")
        .bind(keys.iter().map(|key| key.board_id).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.item_id).collect::<Vec<_>>())
        .fetch_all(pool)
        .await
        .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("lead_fact_pkey") && !plan.contains("Seq Scan"), "{plan}");
}

#[tokio::test]
async fn the_leads_of_agents_are_read_by_their_indexes() {
    let projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let pool = &projection.ground.database.pool;
    fill(pool).await;
    sqlx::query("analyze lead_fact").execute(pool).await.unwrap();
    for (query, index) in
        [(ASSIGNED, "lead_fact_agent_entered"), (WON, "lead_fact_agent_closed_won")]
    {
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("explain {query}")))
            .bind("org1")
            .bind(vec![1_i64, 11])
            .fetch_all(pool)
            .await
            .unwrap();
        let plan = plan.join("\n");
        assert!(plan.contains(index) && !plan.contains("Seq Scan"), "{plan}");
    }
}

#[tokio::test]
async fn marks_of_whole_agents_are_found_among_those_of_leads() {
    let projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let mut projector = projection.projector;
    projector.kill9();
    let pool = &projection.ground.database.pool;
    sqlx::raw_sql(
        "insert into agent_dirty (org_id, agent_id, board_id, item_id, seq)
         select 'demo', n % 500, 1, nullif(n % 50, 0), n from generate_series(1, 20000) as n;
         update agent_dirty set board_id = null where item_id is null;
         analyze agent_dirty",
    )
    .execute(pool)
    .await
    .unwrap();
    let explain = sqlx::AssertSqlSafe(format!("explain {TAKE_WHOLE}"));
    let plan: Vec<String> = sqlx::query_scalar(explain)
        .bind(50_000_i64)
        .bind(100_i64)
        .bind(vec!["demo"; 5])
        .bind(vec![1_i64; 5])
        .fetch_all(pool)
        .await
        .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("agent_dirty_whole") && !plan.contains("Seq Scan"), "{plan}");
}

/// Blocks of leads and of their indexes that were asked for until now.
async fn blocks(pool: &PgPool) -> i64 {
    let mut connection = pool.acquire().await.unwrap();
    sqlx::query("select pg_stat_force_next_flush()").execute(&mut *connection).await.unwrap();
    sqlx::query_scalar(
        "select (heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint
         from pg_statio_user_tables where relname = 'lead_fact'",
    )
    .fetch_one(&mut *connection)
    .await
    .unwrap()
}
