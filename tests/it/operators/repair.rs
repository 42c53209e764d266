use std::collections::BTreeMap;

use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::TestRunner,
};
use serde_json::{Value, json};
use sqlx::Row;
use tests::harness::{Projection, long_run};

use super::{dead_letters::named, history, json, last_audit, refused, setup};

/// Everything in the tables, row by row, without what only says when a row was computed, or what Postgres
/// computes from the rest of the row.
async fn tables(projection: &Projection) -> BTreeMap<String, Value> {
    let rows = sqlx::query(
        "select 'lead ' || board_id || ' ' || item_id as key, to_jsonb(l) - 'last_activity_week' as row
         from lead_fact l
         union all
         select 'agent ' || agent_id || ' ' || window_days,
             to_jsonb(m) - array['computed_at', 'valid_until'] from agent_metrics m
         union all select 'user ' || user_id, to_jsonb(u) from monday_user u",
    )
    .fetch_all(&projection.ground.database.pool)
    .await
    .unwrap();
    rows.iter().map(|row| (row.get("key"), row.get("row"))).collect()
}

/// The names of the fields that changed, by row.
fn changed(
    before: &BTreeMap<String, Value>,
    after: &BTreeMap<String, Value>,
) -> BTreeMap<String, Vec<String>> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut changes = BTreeMap::new();
    for key in keys {
        let (was, is) = (before.get(key), after.get(key));
        if was == is {
            continue;
        }
        let names = [was, is].into_iter().flatten().flat_map(|row| row.as_object().unwrap().keys());
        let mut fields: Vec<String> = names
            .filter(|name| {
                !["org_id", "board_id", "item_id", "agent_id", "window_days", "user_id"]
                    .contains(&name.as_str())
            })
            .filter(|name| {
                let of =
                    |row: Option<&Value>| row.map_or(Value::Null, |row| row[name.as_str()].clone());
                of(was) != of(is)
            })
            .cloned()
            .collect();
        fields.sort();
        fields.dedup();
        changes.insert(key.clone(), fields);
    }
    changes
}

/// The same, as a report tells it.
fn told(report: &Value) -> BTreeMap<String, Vec<String>> {
    let mut changes = BTreeMap::new();
    for (list, kind, ids) in [
        ("lead_changes", "lead", ["board_id", "item_id"]),
        ("agent_changes", "agent", ["agent_id", "window_days"]),
        ("user_changes", "user", ["user_id", "user_id"]),
    ] {
        for change in report[list].as_array().unwrap() {
            let key = match kind {
                "user" => format!("user {}", change["user_id"]),
                _ => format!("{kind} {} {}", change[ids[0]], change[ids[1]]),
            };
            let mut fields: Vec<String> =
                change["fields"].as_object().unwrap().keys().cloned().collect();
            fields.retain(|name| !["org_id", "agent_id", "window_days"].contains(&name.as_str()));
            fields.sort();
            changes.insert(key, fields);
        }
    }
    changes
}

/// Ways to damage the tables by hand; each has one number in it.
const DAMAGE: &[&str] = &[
    "update lead_fact set name = 'wrong' where item_id % 7 = $1 % 7",
    "update lead_fact set state = 'won', closed_won_at = now() where item_id % 5 = $1 % 5",
    "update lead_fact set assigned_user_id = 7001 where item_id % 6 = $1 % 6",
    "update lead_fact set assigned_user_id = null, closed_by_user_id = null where item_id % 6 = $1 % 6",
    "update lead_fact set deal_amount = 1 + $1 where deal_amount is not null and item_id % 3 = $1 % 3",
    "update lead_fact set industry = 'Wrong', next_call_date = now() where item_id % 4 = $1 % 4",
    "update lead_fact set fold_state = '\\x00' where item_id % 9 = $1 % 9",
    "update lead_fact set first_touch_at = null, last_activity_at = null where item_id % 4 = $1 % 4",
    "update lead_fact set lifecycle = 'deleted' where item_id % 8 = $1 % 8",
    "update lead_fact set entered_at = entered_at - interval '1 day', entered_source = 'api' where item_id % 3 = $1 % 3",
    "delete from lead_fact where item_id % 8 = $1 % 8",
    "update agent_metrics set assigned_count = 999, conversion_rate = 2 where agent_id % 2 = $1 % 2",
    "update monday_user set name = 'Nobody' where user_id % 2 = $1 % 2",
];

async fn settled(projection: &Projection) {
    projection.settle().await;
}

#[tokio::test]
async fn a_dry_run_predicts_exactly_what_the_replay_does_after_any_damage() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(40, 900, 41)).await;
    projection.check().await;
    let right = tables(&projection).await;
    let cases = if long_run() { 40 } else { 6 };
    let mut runner = TestRunner::deterministic();
    let damage = proptest::collection::vec((0..DAMAGE.len(), 0_i32..1000), 1..5);
    for _ in 0..cases {
        let damage = damage.new_tree(&mut runner).unwrap().current();
        for (which, number) in &damage {
            sqlx::query(DAMAGE[*which])
                .bind(number)
                .execute(&projection.ground.database.pool)
                .await
                .unwrap();
        }
        let before = tables(&projection).await;
        let words = ["replay", "--org", "demo"];
        let predicted = json(&projection, 0, &[&words[..], &["--dry-run"]].concat());
        assert_eq!(tables(&projection).await, before, "a dry run changes nothing");
        let done = json(&projection, 0, &[&words[..], &["--yes", "--reason", "damage"]].concat());
        settled(&projection).await;
        let after = tables(&projection).await;
        assert_eq!(told(&predicted), changed(&before, &after), "after {damage:?}");
        assert_eq!(predicted["lead_changes"], done["lead_changes"]);
        assert_eq!(after, right, "everything is as it should be, after {damage:?}");
    }
    let audit = last_audit(&projection);
    assert_eq!((&audit["command"], &audit["reason"]), (&json!("replay"), &json!("damage")));
}

#[tokio::test]
async fn a_part_of_the_stream_touches_only_its_leads() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(30, 600, 42)).await;
    projection.check().await;
    let pool = projection.ground.database.pool.clone();
    sqlx::query("update lead_fact set name = 'wrong'").execute(&pool).await.unwrap();
    let one: (i64, i64) = sqlx::query_as("select board_id, item_id from lead_fact limit 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    let (board, item) = (one.0.to_string(), one.1.to_string());
    let done = json(&projection, 0, &["replay", "--board", &board, "--lead", &item, "--yes"]);
    assert_eq!(done["leads"], 1);
    assert_eq!(done["lead_changes"].as_array().unwrap().len(), 1);
    let nothing = json(&projection, 0, &["replay", "--to-time", "2h", "--dry-run"]);
    assert_eq!(nothing["events"], 0);
    assert!(
        refused(&projection, 2, &["replay", "--from-seq", "1", "--from-time", "2h"])
            .contains("cannot")
    );
    assert!(refused(&projection, 2, &["replay", "--org", "demo"]).contains("--yes"));
    json(&projection, 0, &["replay", "--yes"]);
    projection.check().await;
}

#[tokio::test]
async fn a_lead_is_made_anew_beside_a_live_projection_and_no_memory_brings_the_old_row_back() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(20, 400, 43)).await;
    projection.check().await;
    let pool = projection.ground.database.pool.clone();
    let (board, item): (i64, i64) =
        sqlx::query_as("select board_id, item_id from lead_fact order by last_seq desc limit 1")
            .fetch_one(&pool)
            .await
            .unwrap();
    // Its memory is damaged, too; the lane still remembers what it had.
    sqlx::query(
        "update lead_fact set name = 'wrong', fold_state = (select fold_state from lead_fact o
             where (o.board_id, o.item_id) <> ($1, $2) limit 1) where (board_id, item_id) = ($1, $2)",
    )
    .bind(board)
    .bind(item)
    .execute(&pool)
    .await
    .unwrap();
    projection.projector.kill_and_restart();
    let (b, i) = (board.to_string(), item.to_string());
    let words = ["rebuild-lead", &b, &i];
    let planned = json(&projection, 0, &[&words[..], &["--dry-run"]].concat());
    assert_eq!(planned["lead_changes"][0]["fields"]["name"]["from"], "wrong");
    let done = json(&projection, 0, &[&words[..], &["--yes"]].concat());
    assert_eq!(done["lead_changes"], planned["lead_changes"]);
    projection.check().await;
    assert_eq!(last_audit(&projection)["arguments"]["item"], json!(item));

    // Traffic goes on while leads are repaired again and again.
    for round in 0..5 {
        for damage in [
            "update lead_fact set name = 'wrong', state = 'lost' where item_id % 2 = 0",
            "update lead_fact set fold_state = '\\x00' where item_id % 5 = 1",
        ] {
            sqlx::query(damage).execute(&pool).await.unwrap();
        }
        projection.publish(&history(20, 150, 50 + round)).await;
        json(&projection, 0, &["replay", "--org", "demo", "--yes"]);
    }
    projection.settle().await;
    json(&projection, 0, &["replay", "--org", "demo", "--yes"]);
    // Events that met a row whose memory could not be read wait in order behind it.
    json(&projection, 0, &["dead-letters", "retry", "--all", "--yes"]);
    projection.check().await;
    // The lanes, which begin again with the next event, bring no old row back.
    projection.publish(&history(20, 150, 60)).await;
    projection.check().await;
    assert!(
        refused(&projection, 1, &["rebuild-lead", "9001", "999999", "--yes"]).contains("no event")
    );
    assert!(
        refused(&projection, 1, &["rebuild-lead", "1", "1", "--yes"]).contains("no org has mapped")
    );
}

#[tokio::test]
async fn a_replay_of_one_kind_touches_only_leads_with_such_events() {
    let mut projection = Projection::start(setup()).await;
    let commented = json!({
        "type": "create_update", "boardId": 9001, "pulseId": 2, "pulseName": "Dana", "userId": 7,
        "triggerTime": "2026-03-02T10:00:00.000Z", "subscriptionId": 1, "triggerUuid": "2-0",
    });
    projection.publish(&[named(1, "Noa", 0), commented.to_string()]).await;
    projection.check().await;
    let pool = projection.ground.database.pool.clone();
    sqlx::query("update lead_fact set name = 'wrong'").execute(&pool).await.unwrap();
    let replay = |kind: &str| json(&projection, 0, &["replay", "--kind", kind, "--yes"]);
    let done = replay("update_name");
    assert_eq!((&done["events"], &done["leads"]), (&json!(1), &json!(1)), "{done}");
    assert_eq!(done["lead_changes"][0]["item_id"], 1);
    let names = async || -> Vec<String> {
        let names = "select name from lead_fact order by item_id";
        sqlx::query_scalar(names).fetch_all(&pool).await.unwrap()
    };
    assert_eq!(names().await, ["Noa", "wrong"]);
    assert_eq!(replay("archive_pulse")["events"], 0);
    replay("create_update");
    assert_eq!(names().await, ["Noa", "Dana"]);
    projection.check().await;
}
