//! `projector verify` finds what was done to the tables by hand, and nothing else.

use std::process::Output;

use serde_json::Value;
use tests::harness::{Projection, long_run};

use super::{history, setup};

fn verify(projection: &Projection, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["verify", "--json"];
    all.extend(arguments);
    let mut command = projection.ground.command("projector", &all);
    let output: Output = tokio::task::block_in_place(|| command.output().unwrap());
    let said = String::from_utf8_lossy(&output.stderr);
    let verdict = serde_json::from_slice(&output.stdout);
    (output.status.code(), verdict.unwrap_or_else(|error| panic!("{error}: {said}")))
}

async fn execute(projection: &Projection, sql: &str) {
    let statement = sqlx::AssertSqlSafe(sql.to_owned());
    let done = sqlx::raw_sql(statement).execute(&projection.ground.database.pool).await;
    done.unwrap_or_else(|error| panic!("{error}: {sql}"));
}

/// A column of the leads with the item 2, and what is written into it.
const LEAD_DAMAGES: &[(&str, &str)] = &[
    ("name", "coalesce(name, '') || 'x'"),
    ("group_id", "'elsewhere'"),
    ("status_id", "77"),
    ("status_label", "'Nearly'"),
    ("assigned_user_id", "1"),
    ("assigned_at", "now()"),
    ("deal_amount", "coalesce(deal_amount, 0) + 0.01"),
    ("industry", "'fishing'"),
    ("next_call_date", "'1999-12-31'"),
    ("entered_at", "entered_at + interval '1 microsecond'"),
    ("entered_source", "case entered_source when 'api' then 'created' else 'api' end"),
    ("first_touch_at", "now()"),
    ("last_activity_at", "now()"),
    ("state", "case state when 'won' then 'lost' else 'won' end"),
    ("closed_won_at", "now()"),
    ("closed_lost_at", "now()"),
    ("closed_by_user_id", "1"),
    ("lifecycle", "case lifecycle when 'active' then 'deleted' else 'active' end"),
    ("last_event_at", "now()"),
    ("last_seq", "last_seq + 1"),
    ("trace_id", "gen_random_uuid()"),
    ("fold_state", "fold_state || '\\x00'"),
];

/// A column of the rows of AgentMetrics of one window, and what is written into it.
const AGENT_DAMAGES: &[(&str, &str, u32)] = &[
    ("assigned_count", "assigned_count + 1", 30),
    ("median_response_seconds", "coalesce(median_response_seconds, 0) + 0.5", 30),
    ("deals_amount_sum", "deals_amount_sum + 0.01", 90),
    ("industries", "industries || '{\"fishing\": {}}'", 7),
    ("valid_until", "now() + interval '9 years'", 7),
];

/// What is damaged, what is named of it, and how.
const OTHER_DAMAGES: &[(&str, &str, &str)] = &[
    ("lead", "row", "delete from lead_fact where item_id = 2"),
    ("lead", "row", "update lead_fact set deal_amount = 'NaN' where item_id = 2"),
    (
        "lead",
        "row",
        "update lead_fact set item_id = 424242 where item_id = 2 and board_id = (select max(board_id) from lead_fact where item_id = 2)",
    ),
    ("agent", "row", "delete from agent_metrics where window_days = 7"),
    (
        "agent",
        "row",
        "update agent_metrics set agent_id = 5 where window_days = 7 and agent_id = (select min(agent_id) from agent_metrics)",
    ),
    ("user", "name", "update monday_user set name = coalesce(name, '') || 'x'"),
    ("user", "email", "update monday_user set email = 'someone@example.org'"),
    (
        "user",
        "row",
        "delete from monday_user where user_id = (select min(user_id) from monday_user)",
    ),
    (
        "dead letter",
        "payload",
        "insert into dead_letter (projection, stream_created_at, seq, reason, payload)
         select 'main', min(stream_created_at), 999999, 'by hand', '' from checkpoint",
    ),
    ("position", "row", "update checkpoint set seq = seq + 100000 where projection = 'main'"),
];

fn damages() -> Vec<(&'static str, &'static str, String)> {
    let lead = |(column, value): &(&'static str, &str)| {
        let damage = format!("update lead_fact set {column} = {value} where item_id = 2");
        ("lead", *column, damage)
    };
    let agent = |(column, value, days): &(&'static str, &str, u32)| {
        let damage =
            format!("update agent_metrics set {column} = {value} where window_days = {days}");
        ("agent", *column, damage)
    };
    let other = |(what, named, damage): &(&'static str, &'static str, &str)| {
        (*what, *named, (*damage).to_owned())
    };
    let leads = LEAD_DAMAGES.iter().map(lead).chain(AGENT_DAMAGES.iter().map(agent));
    leads.chain(OTHER_DAMAGES.iter().map(other)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_finds_each_kind_of_damage_and_names_it() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(6, 900, 71)).await;
    projection.check().await;
    let (code, verdict) = verify(&projection, &[]);
    assert_eq!((code, &verdict["equal"]), (Some(0), &true.into()), "{verdict}");
    assert_eq!(verdict["seq"], projection.last_seq());
    assert_eq!(verdict["leads"], projection.leads().await.len());
    assert!(verdict["agents"].as_u64().unwrap() > 0 && verdict["users"].as_u64().unwrap() > 0);
    // Nobody mends the damage while it is looked for.
    projection.projector.kill9();
    execute(
        &projection,
        "create table kept_lead as table lead_fact;
         alter table kept_lead drop column last_activity_week; create table kept_agent as table agent_metrics;
         create table kept_user as table monday_user; create table kept_position as table checkpoint",
    )
    .await;
    for (what, field, damage) in damages() {
        execute(&projection, &damage).await;
        let (code, verdict) = verify(&projection, &[]);
        let found = verdict["differences"].as_array().unwrap();
        assert_eq!(code, Some(1), "{damage}");
        let named = found.iter().find(|found| found["what"] == what && found["field"] == field);
        let named = named.unwrap_or_else(|| panic!("{damage}: {verdict}"));
        if what == "lead" && named["key"] != "9002/424242" && !damage.contains("424242") {
            assert!(!named["events"].as_array().unwrap().is_empty(), "the events behind: {named}");
        }
        assert!(found.iter().all(|one| one["what"] == what), "only this: {verdict}");
        execute(
            &projection,
            "truncate lead_fact, agent_metrics, monday_user, checkpoint, dead_letter;
             insert into lead_fact table kept_lead; insert into agent_metrics table kept_agent;
             insert into monday_user table kept_user; insert into checkpoint table kept_position",
        )
        .await;
    }
    assert_eq!(verify(&projection, &[]).0, Some(0), "all is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_beside_a_projection_under_traffic_says_equal_every_time() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(300, 2000, 72)).await;
    let traffic = history(300, if long_run() { 20_000 } else { 1_500 }, 73);
    let (mut rounds, mut last) = (0, 0);
    for part in traffic.chunks(150) {
        let running = projection
            .ground
            .command("projector", &["verify", "--json"])
            .env("LEADPULSE_PROJECTOR_REBUILD_MEMORY_MIB", if rounds % 2 == 0 { "1" } else { "64" })
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        for few in part.chunks(10) {
            projection.publish(few).await;
        }
        let output = tokio::task::block_in_place(|| running.wait_with_output().unwrap());
        let verdict: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{verdict}");
        let seq = verdict["seq"].as_u64().unwrap();
        assert!(seq >= last, "{seq} after {last}");
        last = seq;
        rounds += 1;
    }
    assert!(last > 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_can_look_at_one_org_one_board_or_some_leads() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(100, 1500, 74)).await;
    projection.check().await;
    let leads = projection.leads().await.len() as u64;
    let (_, org) = verify(&projection, &["--org", "other"]);
    assert_eq!((&org["equal"], &org["leads"]), (&true.into(), &0.into()), "{org}");
    let (_, sample) = verify(&projection, &["--sample", "20"]);
    let seen = sample["leads"].as_u64().unwrap();
    assert!(sample["equal"] == true && seen > 0 && seen < leads, "{seen} of {leads}");
    execute(&projection, "update lead_fact set name = 'damaged' where board_id = 9001").await;
    let (code, other) = verify(&projection, &["--board", "9002"]);
    assert_eq!(code, Some(0), "{other}");
    assert_eq!(verify(&projection, &["--board", "9001"]).0, Some(1));
}

/// Postgres refuses leads that were touched in 2001: they wait in the dead letters.
#[tokio::test(flavor = "multi_thread")]
async fn parked_and_skipped_events_are_no_difference_and_a_lost_letter_is_one() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.settle().await;
    execute(
        &projection,
        "alter table lead_fact add constraint poison check (first_touch_at > '2002-01-01')",
    )
    .await;
    let event = |item: i64, n: i64, kind: &str, at: &str| {
        serde_json::json!({
            "type": kind, "boardId": 9001, "pulseId": item, "userId": 7, "groupId": "topics",
            "value": { "name": format!("{item} {n}") }, "triggerTime": at, "subscriptionId": 1,
            "triggerUuid": format!("{item}-{n}"),
        })
        .to_string()
    };
    let (old, new) = ("2001-01-01T00:00:00Z", "2026-03-02T10:00:00Z");
    let mut events = Vec::new();
    for item in 1..=3 {
        events.push(event(item, 1, "update_name", new));
        events.push(event(item, 2, "create_update", old));
        events.push(event(item, 3, "update_name", new));
    }
    projection.publish(&events).await;
    projection.settle().await;
    let (code, verdict) = verify(&projection, &[]);
    assert_eq!((code, &verdict["dead_letters"]), (Some(0), &6.into()), "{verdict}");
    execute(
        &projection,
        "update dead_letter set resolved_at = now(), resolution = 'skipped' where item_id = 1",
    )
    .await;
    assert_eq!(verify(&projection, &[]).0, Some(0), "skipped is not applied");
    // A rebuild parks them, too, and leaves out what was skipped.
    super::rebuild::rebuild(&projection, &["start"]);
    super::rebuild::rebuild(&projection, &["swap"]);
    projection.settle().await;
    let (code, verdict) = verify(&projection, &[]);
    assert_eq!((code, &verdict["dead_letters"]), (Some(0), &4.into()), "{verdict}");
    super::rebuild::rebuild(&projection, &["drop-archive"]);
    execute(&projection, "delete from dead_letter where item_id = 2").await;
    assert_eq!(verify(&projection, &[]).0, Some(1), "a lost letter is a lost event");
    // With the cause mended a rebuild applies what waited.
    execute(&projection, "alter table lead_fact drop constraint poison").await;
    super::rebuild::rebuild(&projection, &["start", "--swap"]);
    projection.settle().await;
    let (code, verdict) = verify(&projection, &[]);
    assert_eq!((code, &verdict["dead_letters"]), (Some(0), &0.into()), "{verdict}");
}

/// What a database has that was projected before the fold remembered the messages of a lead.
async fn forget_messages(projection: &Projection) {
    let pool = &projection.ground.database.pool;
    let states: Vec<(i64, i64, Vec<u8>)> =
        sqlx::query_as("select board_id, item_id, fold_state from lead_fact")
            .fetch_all(pool)
            .await
            .unwrap();
    for (board, item, state) in states {
        let mut fields = minicbor::Decoder::new(&state);
        assert_eq!(fields.array().unwrap(), Some(17), "one field more than before");
        let first = fields.position();
        for _ in 0..16 {
            fields.skip().unwrap();
        }
        let mut older = Vec::new();
        minicbor::Encoder::new(&mut older).array(16).unwrap();
        older.extend(&state[first..fields.position()]);
        sqlx::query("update lead_fact set fold_state = $3 where (board_id, item_id) = ($1, $2)")
            .bind(board)
            .bind(item)
            .bind(older)
            .execute(pool)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn states_of_an_older_version_are_told_in_one_line_and_made_anew_by_a_rebuild() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(30, 400, 57)).await;
    projection.check().await;
    projection.projector.kill9();
    forget_messages(&projection).await;
    projection.projector.restart().unwrap();
    let (code, verdict) = verify(&projection, &[]);
    assert_eq!((code, &verdict["differences"]), (Some(1), &serde_json::json!([])), "{verdict}");
    assert_eq!(verdict["older_states"], verdict["leads"]);
    // It goes on with them, and remembers what comes now.
    projection.publish(&history(30, 100, 58)).await;
    projection.check().await;
    let (code, verdict) = verify(&projection, &[]);
    assert_eq!((code, &verdict["differences"]), (Some(1), &serde_json::json!([])), "{verdict}");
    super::rebuild::rebuild(&projection, &["start", "--swap"]);
    projection.check().await;
    let (code, verdict) = verify(&projection, &[]);
    assert_eq!((code, &verdict["older_states"]), (Some(0), &serde_json::json!(0)), "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verify_does_not_name_it_counts() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(600, 3000, 75)).await;
    let rename = |n| super::poison::named(4_242_000, &format!("name {n}"), n);
    projection.publish(&(0..60).map(rename).collect::<Vec<_>>()).await;
    projection.check().await;
    projection.projector.kill9();
    execute(&projection, "update lead_fact set name = 'wrong' where item_id = 4242000").await;
    let (_, verdict) = verify(&projection, &[]);
    let named = verdict["differences"].as_array().unwrap();
    let events = named[0]["events"].as_array().unwrap().len();
    assert_eq!((named.len(), events, &named[0]["more_events"]), (1, 50, &10.into()), "{verdict}");

    let leads = projection.leads().await.len();
    execute(
        &projection,
        "update lead_fact set name = 'wrong', group_id = 'wrong', industry = 'wrong'",
    )
    .await;
    let (code, verdict) = verify(&projection, &[]);
    let number = |name: &str| usize::try_from(verdict[name].as_u64().unwrap()).unwrap();
    let named = verdict["differences"].as_array().unwrap();
    assert_eq!((code, named.len(), number("more")), (Some(1), 1000, leads * 3 - 1000));
    let of_leads: std::collections::BTreeSet<_> =
        named.iter().map(|difference| difference["key"].as_str().unwrap()).collect();
    assert_eq!(number("leads_without_events"), of_leads.len() - 100);
    let output = projection.ground.run("projector", &["verify"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let more = format!("… and {} more differences", leads * 3 - 1000);
    assert!(text.contains(&more), "{text}");
    assert!(text.contains(&format!("{} of these leads stand without", of_leads.len() - 100)));
}
