use tests::{
    harness::{PATIENCE, Projection, wait_until},
    rules::{Label, Rules},
};

use super::{bytes, history, rebuild, refused, setup};

/// Another status counts as won, and the owner stands in another column: what the lanes remember of
/// the old mapping would be seen.
fn other_rules() -> Rules {
    let mut rules = Rules::default();
    rules.boards[0].won = vec![Label::Id(1), Label::Id(3)];
    rules.boards[0].lost = vec![Label::Id(2)];
    rules.boards[0].contacted = Vec::new();
    rules.boards[0].industry = Some("text_1".into());
    rules.boards[1].owner = None;
    rules
}

async fn health(projection: &Projection) -> String {
    projection.projector.page("/health/detailed").await.body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_is_what_the_naive_implementation_makes_of_it_and_can_be_taken_back() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(30, 1200, 41)).await;
    projection.check().await;
    let before = bytes(&projection).await;
    let old = Rules::default();
    let seen_by_old = projection.last_seq();

    projection.ground.reconfigure(other_rules());
    let plan = rebuild(&projection, &["plan"]);
    assert_ne!(plan["mapping_of_tables"], plan["mapping_of_today"]);
    assert!(plan["differing_rows"].as_u64().unwrap() > 0, "{plan}");
    assert_eq!(plan["events"], seen_by_old);
    let swapped = rebuild(&projection, &["start", "--swap"]);
    assert_eq!(swapped["seq"], seen_by_old);
    // The projector was not restarted: it lets go of what it remembers, and adopts the mapping.
    projection.publish(&history(30, 300, 42)).await;
    projection.check().await;
    assert_ne!(bytes(&projection).await, before);
    let text = health(&projection).await;
    assert!(!text.contains("were made with mapping"), "{text}");

    // And back, the events since then in the terms of the old mapping, which the process still has.
    rebuild(&projection, &["rollback"]);
    projection.ground.rules = old.clone();
    projection.check().await;

    // A projector that is started with the other mapping says so, plainly.
    projection.projector.kill_and_restart();
    wait_until("the projector says that the mapping is another", PATIENCE, async || {
        let text = health(&projection).await;
        text.contains("were made with mapping") && text.contains("projector rebuild plan")
    })
    .await;
    projection.ground.reconfigure(old);
    projection.projector.kill_and_restart();
    wait_until("the projector runs with the old mapping", PATIENCE, async || {
        let text = health(&projection).await;
        !text.contains("were made with mapping") && text.contains("\"active\"")
    })
    .await;
    // A rebuild with the old mapping makes everything as if nothing had been.
    rebuild(&projection, &["drop-archive"]);
    rebuild(&projection, &["start", "--swap"]);
    projection.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_gives_exactly_the_old_tables_when_nothing_came_in_between() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(20, 600, 43)).await;
    projection.check().await;
    let before = bytes(&projection).await;
    projection.ground.reconfigure(other_rules());
    rebuild(&projection, &["start", "--swap"]);
    assert_ne!(bytes(&projection).await, before);
    rebuild(&projection, &["rollback"]);
    assert_eq!(bytes(&projection).await, before);
    // The way back has a way back.
    rebuild(&projection, &["rollback"]);
    projection.check().await;
    rebuild(&projection, &["drop-archive"]);
    let gone = refused(&projection, &["rollback"]);
    assert!(gone.contains("no archive"), "{gone}");
}
