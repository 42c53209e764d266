//! `projector rebuild`, as an operator types it, beside a projection that goes on.

mod crashes;
mod live;
mod mapping;

use std::process::Output;

use serde_json::Value;
use sqlx::Row;
use tests::harness::{PATIENCE, Projection, long_run, wait_until};

use super::{history, setup};

/// Types a command of `projector rebuild` and waits for its end. Blocks the thread.
fn operator(projection: &Projection, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut all = vec!["rebuild"];
    all.extend(arguments);
    all.extend(["--yes", "--json"]);
    let mut command = projection.ground.command("projector", &all);
    tokio::task::block_in_place(|| command.envs(environment.iter().copied()).output().unwrap())
}

/// The same, and it must succeed: what it says.
pub(super) fn rebuild(projection: &Projection, arguments: &[&str]) -> Value {
    let output = operator(projection, arguments, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "rebuild {arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The same, and it must be refused: why.
fn refused(projection: &Projection, arguments: &[&str]) -> String {
    let output = operator(projection, arguments, &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Readers may be held up for 50 ms; where other tests want the same two cores nobody can promise that.
fn longest_lock_ms() -> f64 {
    if long_run() { 50.0 } else { 300.0 }
}

/// All of LeadFact and of the users, as text.
async fn bytes(projection: &Projection) -> Vec<String> {
    sqlx::query_scalar(
        "select lead_fact::text from lead_fact union all select monday_user::text from monday_user
         order by 1",
    )
    .fetch_all(&projection.ground.database.pool)
    .await
    .unwrap()
}

async fn number(projection: &Projection, sql: &'static str) -> i64 {
    sqlx::query(sql).fetch_one(&projection.ground.database.pool).await.unwrap().get(0)
}

/// What a table is made of: columns, keys, indexes, settings.
async fn structure(projection: &Projection) -> Vec<String> {
    sqlx::query_scalar(
        "select format('%s.%s %s %s', relname, attname, atttypid::regtype, attnotnull)
         from pg_attribute join pg_class on pg_class.oid = attrelid
         where relnamespace = 'public'::regnamespace and relkind = 'r' and attnum > 0
         union all select indexdef from pg_indexes where schemaname = 'public'
         union all select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
             from pg_constraint where connamespace = 'public'::regnamespace
         union all select relname || coalesce(reloptions::text, '') from pg_class
             where relnamespace = 'public'::regnamespace and relkind = 'r'
         order by 1",
    )
    .fetch_all(&projection.ground.database.pool)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_gives_the_same_rows_and_the_same_tables_in_one_pass_or_in_many() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(400, 3000, 31)).await;
    projection.check().await;
    let tables = structure(&projection).await;
    for (round, memory) in [(1, "512"), (2, "1")] {
        let rows = bytes(&projection).await;
        let environment = [("LEADPULSE_PROJECTOR_REBUILD_MEMORY_MIB", memory)];
        let plan = operator(&projection, &["plan"], &environment);
        let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
        let planned = plan["passes"].as_i64().unwrap();
        let output = operator(&projection, &["start"], &environment);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let built: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(built["phase"], "ready to swap");
        let passes = built["passes"].as_i64().unwrap();
        assert!(if memory == "1" { passes > 1 } else { passes == 1 }, "{built}");
        assert!(planned <= passes * 2 && passes <= planned * 2, "{plan}: {built}");
        let swapped = rebuild(&projection, &["swap"]);
        assert!(swapped["lock_ms"].as_f64().unwrap() < longest_lock_ms(), "{swapped}");
        assert_eq!(bytes(&projection).await, rows, "{memory} MiB");
        assert_eq!(structure(&projection).await, tables);
        projection.publish(&history(400, 300, 31 + round)).await;
        projection.check().await;
        let kept = refused(&projection, &["start"]);
        assert!(kept.contains("drop-archive"), "{kept}");
        rebuild(&projection, &["drop-archive"]);
    }
    assert_eq!(
        number(&projection, "select count(*) from rebuild where phase = 'swapped'").await,
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_the_old_tables_may_read_the_new_ones_and_a_view_on_them_is_an_obstacle() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(5, 50, 34)).await;
    projection.check().await;
    let pool = &projection.ground.database.pool;
    let prepare = "do $$ begin create role leadpulse_test_reader; exception when duplicate_object then end $$;
        grant select on lead_fact, agent_metrics, monday_user to leadpulse_test_reader;
        create view board as select board_id from lead_fact";
    sqlx::raw_sql(prepare).execute(pool).await.unwrap();
    let no = refused(&projection, &["start"]);
    assert!(no.contains("board would go on reading"), "{no}");
    sqlx::raw_sql("drop view board").execute(pool).await.unwrap();
    rebuild(&projection, &["start", "--swap"]);
    let may = "select count(*) from unnest(array['lead_fact', 'agent_metrics', 'monday_user']) as t (name)
        where has_table_privilege('leadpulse_test_reader', name, 'select')";
    assert_eq!(number(&projection, may).await, 3);
    rebuild(&projection, &["drop-archive"]);
    let tidy = "drop owned by leadpulse_test_reader";
    sqlx::raw_sql(tidy).execute(&projection.ground.database.pool).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_leaves_an_audit_row_with_its_reason_and_its_result() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(5, 50, 35)).await;
    projection.check().await;
    rebuild(&projection, &["start", "--reason", "the mapping was wrong", "--as", "dana"]);
    rebuild(&projection, &["swap"]);
    refused(&projection, &["swap"]);
    let rows: Vec<(String, String, Option<String>, bool)> =
        sqlx::query_as("select who, command, reason, succeeded from operator_audit order by id")
            .fetch_all(&projection.ground.database.pool)
            .await
            .unwrap();
    assert_eq!(rows.len(), 3);
    let (who, command, reason, succeeded) = &rows[0];
    assert_eq!((who.as_str(), command.as_str(), *succeeded), ("dana", "rebuild start", true));
    assert_eq!(reason.as_deref(), Some("the mapping was wrong"));
    assert_eq!((rows[1].3, rows[2].3), (true, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_asks_neither_migrates_nor_says_what_the_tables_were_made_with() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    // An empty stream is settled as soon as there are positions; the mapping is said after them.
    wait_until("the tables' mapping is said", PATIENCE, async || {
        number(&projection, "select count(*) from projection_mapping").await == 1
    })
    .await;
    projection.projector.kill9();
    // What it was saying when it was killed is still carried out.
    wait_until("Postgres has done with it", PATIENCE, async || {
        let its_own = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'projector'";
        number(&projection, its_own).await == 0
    })
    .await;
    let pool = &projection.ground.database.pool;
    sqlx::raw_sql("delete from projection_mapping").execute(pool).await.unwrap();
    let plan = rebuild(&projection, &["plan"]);
    assert!(plan["mapping_of_tables"].is_null(), "{plan}");
    assert_eq!(number(&projection, "select count(*) from projection_mapping").await, 0);
    for (version, wanted) in
        [(1, "`projector migrate` first"), (i64::MAX, "newer than this binary")]
    {
        let query = "update _sqlx_migrations set version = $1
            where version = (select max(version) from _sqlx_migrations) returning version";
        sqlx::query(query).bind(version).execute(pool).await.unwrap();
        for command in ["plan", "status", "start"] {
            let said = refused(&projection, &[command]);
            assert!(said.contains(wanted), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_counts_as_memory_too() {
    let projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    let jetstream = projection.jetstream().await;
    for _ in 0..30 {
        let rubbish = "x".repeat(50_000);
        let publish = jetstream.publish("leadpulse.events.demo.9001.other", rubbish.into());
        publish.await.unwrap().await.unwrap();
    }
    let environment = |mib| [("LEADPULSE_PROJECTOR_REBUILD_MEMORY_MIB", mib)];
    let output = operator(&projection, &["start"], &environment("1"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("raise projector.rebuild_memory_mib"), "{said}");
    assert!(operator(&projection, &["start"], &environment("8")).status.success());
}
