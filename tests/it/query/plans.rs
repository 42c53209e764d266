//! What reads cost: the same number of statements for any number of rows, and an index for each.

use std::fs;

use tests::harness::{PATIENCE, long_run, wait_until};

use super::fixture::{METRICS, Reads, USERS};

const READS: [&str; 17] = [
    "/v1/leads?limit=200",
    "/v1/leads?limit=200&count=exact&state=won&agent_id=7001",
    "/v1/leads/9002/1",
    "/v1/leads/9002/1/timeline",
    "/v1/agents?limit=200",
    "/v1/agents/7001",
    "/v1/agents/leaderboard",
    "/v1/kpis/summary",
    "/v1/kpis/funnel",
    "/v1/kpis/timeseries?group_by=agent",
    "/v1/industries",
    "/v1/search?q=lead",
    "/v1/users",
    "/v1/meta",
    "/v1/export/leaderboard.csv",
    "/v1/export/leads.csv?state=won",
    "/outcomes/summary",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_read_has_more_statements_for_more_rows() {
    let reads = Reads::start(false, &[("LEADPULSE_LOG_LEVEL", "info,sqlx=debug")]).await;
    let mut counts = Vec::new();
    for rows in [1, 10, 200] {
        reads.run("delete from lead_fact where $1 > 0", rows).await;
        reads.run("delete from agent_metrics where $1 > 0", rows).await;
        reads.run("delete from monday_user where $1 > 0", rows).await;
        reads.fill(rows).await;
        reads.run(METRICS, rows).await;
        reads.run(USERS, rows).await;
        reads.publish().await;
        wait_until("the new rows are read", PATIENCE, async || {
            let users = reads.read("/v1/users?limit=199").await;
            users["items"].as_array().unwrap().len() == usize::try_from(rows.min(199)).unwrap()
        })
        .await;
        let mut row = Vec::new();
        for path in READS {
            let before = statements(&reads);
            let answer = reads.get_as(&reads.key, path, &[("x-api-key", &reads.key)]).await;
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            row.push((path, statements(&reads) - before));
        }
        counts.push(row);
    }
    assert_eq!(counts[0], counts[1]);
    assert_eq!(counts[1], counts[2]);
    assert!(counts[0].iter().all(|(_, count)| (1..=3).contains(count)), "{counts:?}");
}

/// Statements over the read models so far, as the service's own log has them.
fn statements(reads: &Reads) -> usize {
    let tables = ["lead_fact", "agent_metrics", "monday_user"];
    let log = reads.api.log_text();
    let of_reads = |line: &&str| {
        line.contains("sqlx::query") && tables.iter().any(|table| line.contains(table))
    };
    log.lines().filter(of_reads).count()
}

/// The common combinations of a dashboard, and what finds them.
const INDEXED: [(&str, &str); 22] = [
    ("/v1/leads?limit=51", "lead_fact_entered"),
    ("/v1/leads?from=2026-01-01&to=2030-01-01&state=won", "lead_fact_entered"),
    ("/v1/leads?order=asc&board_id=9001", "lead_fact_entered"),
    ("/v1/leads?date_field=first_touch", "lead_fact_first_touch"),
    ("/v1/leads?date_field=closed_won&min_amount=5", "lead_fact_closed_won"),
    ("/v1/leads?date_field=last_activity", "lead_fact_last_activity"),
    ("/v1/leads?date_field=last_activity&order=asc&from=2026-01-01", "lead_fact_last_activity"),
    ("/v1/leads?date_field=last_activity&to=2030-01-01&state=won", "lead_fact_last_activity"),
    ("/v1/leads?agent_id=7001", "lead_fact_agent_entered"),
    ("/v1/leads?agent_id=7001&state=open", "lead_fact_agent_entered"),
    ("/v1/leads/9002/10", "lead_fact_pkey"),
    ("/v1/kpis/summary?window=7d", "lead_fact_entered"),
    ("/v1/kpis/summary?window=7d&board_id=9001", "lead_fact_closed_won"),
    ("/v1/kpis/funnel?window=7d", "lead_fact_entered"),
    ("/v1/search?q=lead+199", "lead_fact_name_"),
    ("/v1/search?q=le", "lead_fact_name_prefix"),
    ("/v1/leads?count=exact&from=2026-01-01&to=2030-01-01", "lead_fact_entered"),
    ("/v1/leads?count=estimated&state=won", "lead_fact_entered"),
    ("/v1/kpis/timeseries?group_by=agent", "lead_fact_entered"),
    ("/v1/kpis/timeseries?group_by=industry&metric=closed_won_count", "lead_fact_closed_won"),
    ("/v1/industries?window=30d", "lead_fact_entered"),
    ("/v1/export/leads.csv?agent_id=7001", "lead_fact_agent_entered"),
];

/// Of 10 orgs; in full size for the long run.
fn size() -> i64 {
    if long_run() { 2_000_000 } else { 100_000 }
}

#[tokio::test(flavor = "multi_thread")]
async fn common_reads_find_their_rows_by_an_index_and_sort_no_more_than_a_page() {
    let mut reads = Reads::start_with_own_postgres().await;
    reads.run(MANY, size()).await;
    let pool = reads.ground.database.pool.clone();
    sqlx::query("analyze lead_fact").execute(&pool).await.unwrap();
    let log = reads.ground.database.server().log().to_owned();
    for setting in [
        "alter database leadpulse set session_preload_libraries = 'auto_explain'",
        "alter database leadpulse set auto_explain.log_min_duration = 0",
        "alter database leadpulse set auto_explain.log_analyze = on",
    ] {
        let url = reads.ground.database.url();
        let name = url.rsplit('/').next().unwrap();
        let setting = setting.replace("database leadpulse", &format!("database {name}"));
        sqlx::query(sqlx::AssertSqlSafe(setting)).execute(&pool).await.unwrap();
    }
    reads.api.kill_and_restart();
    reads.api.wait_until_ready().await;
    // What was answered beforehand shows no plan: from here on nothing of it is of any use.
    reads.publish().await;
    wait_until("the new version is heard", PATIENCE, async || {
        let answer = reads.get("/v1/meta").await;
        answer.header("cache-status").is_some_and(|status| status.contains("fwd=miss"))
    })
    .await;
    let page = reads.read("/v1/leads?date_field=last_activity&limit=7").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let second = format!("/v1/leads?date_field=last_activity&limit=7&cursor={cursor}");
    for (path, index) in INDEXED.into_iter().chain([(&*second, "lead_fact_last_activity")]) {
        let before = fs::read_to_string(&log).unwrap_or_default().len();
        let answer = reads.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(!answer.header("cache-status").unwrap_or("").contains("hit"), "{path}: {answer:?}");
        let mut plan = String::new();
        wait_until("the plan is in the log", PATIENCE, async || {
            fs::read_to_string(&log).unwrap()[before..].contains(" lead_fact")
        })
        .await;
        plan.push_str(&fs::read_to_string(&log).unwrap()[before..]);
        assert!(!plan.contains("Seq Scan on lead_fact"), "{path}:\n{plan}");
        assert!(plan.contains(index), "{path} does not use {index}:\n{plan}");
        if path.starts_with("/v1/leads") {
            let sorts =
                |line: &str| line.trim_start_matches([' ', '\t', '-', '>']).starts_with("Sort  (");
            assert!(!plan.lines().any(sorts), "{path} sorts:\n{plan}");
            // An incremental sort orders the leads of one instant or, by last activity, passes over those of a week:
            // it holds no more of them than a page, which is some 50 kB.
            let held = plan.split("Memory: ").skip(1).filter_map(|rest| rest.split_once("kB"));
            let most = held.map(|(kilobytes, _)| kilobytes.parse::<u32>().unwrap()).max();
            assert!(most.is_none_or(|most| most < 100), "{path} holds more than a page:\n{plan}");
            assert!(!plan.contains("Disk: "), "{path} sorts on disk:\n{plan}");
        }
    }
}

const MANY: &str = "
insert into lead_fact (org_id, board_id, item_id, name, status_id, status_label, assigned_user_id, deal_amount, industry,
    entered_at, entered_source, first_touch_at, last_activity_at, state, closed_won_at, closed_by_user_id, lifecycle,
    last_event_at, last_seq, fold_state)
select (array['demo', 'other', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j'])[n % 10 + 1], 9001 + n % 20 / 10, n,
    'Lead ' || n, 5, 'New', 7000 + n / 10 % 50, n % 1000, (array['Finance', 'Health', null])[n % 3 + 1],
    now() - random() * interval '400 d', 'created', now() - random() * interval '300 d',
    now() - random() * interval '300 d', case when n % 30 < 10 then 'won' else 'open' end,
    case when n % 30 < 10 then now() - random() * interval '300 d' end, 7000 + n / 10 % 50, 'active', now(), n, ''
from generate_series(1, $1) as n";
