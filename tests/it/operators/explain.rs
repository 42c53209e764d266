use std::process::Stdio;

use serde_json::{Value, json};
use tests::{
    harness::Projection,
    naive::{AgentMetrics, World, agents},
};

use super::{dead_letters::named, history, json, operate, refused, setup};

#[tokio::test]
async fn each_field_of_a_lead_names_its_events_and_a_row_that_is_not_theirs_is_told() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(6, 300, 61)).await;
    projection.check().await;
    for ((board, item), lead) in projection.leads().await {
        let (board, item) = (board.to_string(), item.to_string());
        let explained = json(&projection, 0, &["explain", "lead", &board, &item]);
        assert_eq!(explained["agrees"], true, "{explained}");
        let field = |name: &str| -> Value {
            let fields = explained["fields"].as_array().unwrap();
            fields.iter().find(|field| field["field"] == name).unwrap().clone()
        };
        assert_eq!(field("name")["value"], json!(lead.name));
        assert_eq!(field("last_seq")["causes"][0]["seq"], lead.last_seq);
        for name in [
            "name",
            "group_id",
            "status_label",
            "assigned_user_id",
            "assigned_at",
            "deal_amount",
            "industry",
            "next_call_date",
            "entered_at",
            "first_touch_at",
            "last_activity_at",
            "closed_won_at",
            "closed_lost_at",
            "closed_by_user_id",
            "last_event_at",
        ] {
            let field = field(name);
            let caused = !field["causes"].as_array().unwrap().is_empty();
            assert!(caused || field["value"].is_null(), "{board} {item}: {field}");
        }
    }
    sqlx::query("update lead_fact set industry = 'Wrong'")
        .execute(&projection.ground.database.pool)
        .await
        .unwrap();
    let (board, item) = *projection.leads().await.keys().next().unwrap();
    let output = operate(&projection, &["explain", "lead", &board.to_string(), &item.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("THE TABLE HAS \"Wrong\""));
    assert!(String::from_utf8_lossy(&output.stderr).contains("rebuild-lead"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_to_which_more_happens_meanwhile_is_still_what_its_events_make_it() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&[named(3, "before", 0)]).await;
    projection.settle().await;
    let mut explain =
        projection.ground.command("projector", &["explain", "lead", "9001", "3", "--json"]);
    // The read takes its time, and the lane goes on.
    explain.env("FAILPOINTS", "range-message=1*sleep(700)");
    let mut child = explain.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut n = 1;
    while child.try_wait().unwrap().is_none() {
        projection.publish(&[named(3, &format!("name {n}"), n)]).await;
        n += 1;
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn each_figure_of_an_agent_is_made_of_the_leads_that_are_named() {
    let mut projection = Projection::start(setup()).await;
    projection.publish(&history(40, 900, 62)).await;
    projection.check().await;
    let world = World::of(&projection.arrivals, &projection.ground.rules);
    let leads = world.all_leads();
    let now = chrono::Utc::now().timestamp_micros();
    for agent in agents(&leads) {
        let wanted = AgentMetrics::of(&leads, &projection.ground.rules, agent, 30, now);
        let explain = |metric: &str| {
            let agent = agent.to_string();
            let words = [
                "explain", "agent", &agent, "--org", "demo", "--window", "30d", "--metric", metric,
            ];
            json(&projection, 0, &words)
        };
        for (metric, count) in [
            ("assigned_count", wanted.assigned_count),
            ("touched_count", wanted.touched_count),
            ("cohort_won_count", wanted.cohort_won_count),
            ("closed_won_count", wanted.closed_won_count),
            ("hot_deals_count", wanted.hot_deals_count),
        ] {
            let explained = explain(metric);
            assert_eq!(
                explained["leads"].as_array().unwrap().len(),
                count,
                "{metric}: {explained}"
            );
            assert_eq!(explained["value"], count, "{metric}");
            assert_eq!(explained["stored"], explained["value"], "{metric}");
        }
        for metric in [
            "conversion_rate",
            "median_response_seconds",
            "median_time_to_close_seconds",
            "deals_amount_sum",
            "last_activity_at",
        ] {
            let explained = explain(metric);
            let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
            match (number(&explained["value"]), number(&explained["stored"])) {
                (Some(value), Some(stored)) => {
                    assert!((value - stored).abs() < 1e-6, "{explained}")
                }
                (value, stored) => assert_eq!(value, stored, "{explained}"),
            }
        }
    }
    assert!(
        refused(&projection, 2, &["explain", "agent", "7001", "--org", "demo", "--metric", "luck"])
            .contains("none of")
    );
    assert!(
        refused(
            &projection,
            2,
            &[
                "explain",
                "agent",
                "7001",
                "--org",
                "demo",
                "--window",
                "8d",
                "--metric",
                "conversion_rate"
            ]
        )
        .contains("windows")
    );
}
