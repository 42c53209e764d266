//! What an operator does with `ingest`: mend a secret, let the refused in.

use tests::{
    door::{Door, DoorSetup},
    harness::{PATIENCE, wait_until},
};

use super::hostile::{by_token, signed};

pub(super) fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_loses_nothing_it_is_mended_without_a_restart_and_the_refused_are_released()
{
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let right = r#"secret = "env:TEST_SIGNING_SECRET""#;
    let wrong = r#"secret = "env:TEST_MAC_SECRET""#;
    let read_again = || door.metric("ingest_reloads_total", &[("outcome", "done")]);

    door.edit(right, wrong);
    wait_until("the wrong secret is read", PATIENCE, async || read_again() >= 1.0).await;
    let (one, two) = (br#"{"event":{"type":"x","n":1}}"#, br#"{"event":{"type":"x","n":2}}"#);
    assert_eq!(door.send(&[&signed(one)]).status, 401);
    assert_eq!(door.send(&[&signed(two)]).status, 401);
    assert_eq!(door.send(&[&by_token(one)]).status, 200, "other sources go on");

    door.edit(wrong, right);
    wait_until("the right secret is read", PATIENCE, async || read_again() >= 2.0).await;
    assert_eq!(door.send(&[&signed(two)]).status, 200);

    let plan = said(&door.run(&["quarantine", "release", "--dry-run", "--since", "1h"]));
    assert!(plan.contains("2 would be released"), "{plan}");
    assert_eq!(door.messages("LEADPULSE_EVENTS").await.len(), 2, "a dry run changed the stream");
    let done = said(&door.run(&["quarantine", "release", "--reason", "auth_signature"]));
    assert!(done.contains("0 released, 2 known already"), "{done}");
    assert!(door.messages("LEADPULSE_QUARANTINE").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_wrong_stays_in_the_quarantine() {
    let door = Door::start(DoorSetup::default()).await.ready().await;
    let event = br#"{"event":{"type":"x"}}"#;
    let forged = super::hostile::authorized("forged", event);
    assert_eq!(door.send(&[&forged]).status, 401);
    assert_eq!(door.send(&[&signed(b"{}")]).status, 400);
    let done = said(&door.run(&["quarantine", "release"]));
    assert!(done.contains("0 released, 0 known already, 2 still refused"), "{done}");
    assert_eq!(door.messages("LEADPULSE_QUARANTINE").await.len(), 2);
    let listed = said(&door.run(&["quarantine", "list", "--source", "demo-crm"]));
    assert!(listed.contains("auth_malformed") && listed.contains("2 entries"), "{listed}");
    let none = said(&door.run(&["quarantine", "list", "--source", "by-token"]));
    assert!(none.contains("0 entries"), "{none}");
}
