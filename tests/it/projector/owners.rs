use tests::harness::{PATIENCE, Projection, wait_until};

use super::{history, setup};

#[tokio::test]
async fn a_standby_takes_over_at_once_from_an_owner_that_leaves() {
    // Longer than anybody here waits for the lease to lapse.
    let lease = ("LEADPULSE_PROJECTOR_LEASE_TTL_MS", "60000");
    let mut projection = Projection::start(setup(&[lease])).await;
    projection.publish(&history(10, 100, 12)).await;
    projection.settle().await;
    let standby = projection.ground.start_as("projector", "standby").unwrap();
    wait_until("the standby stands by", PATIENCE, async || {
        standby.log_text().contains("standing by")
    })
    .await;
    assert!(projection.projector.stop(PATIENCE));
    projection.publish(&history(10, 100, 13)).await;
    wait_until("the standby projects", PATIENCE, async || {
        standby.log_text().contains("lease taken")
    })
    .await;
    projection.check().await;
}
