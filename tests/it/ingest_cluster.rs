//! Three copies of the record: its leader dies under load, and no 200 is lost.

use std::time::Duration;

use tests::{
    cluster::Cluster,
    door::{Door, DoorSetup},
    harness::{long_run, wait_until},
    load::{Load, audit},
};
use xtask::servers::Scratch;

const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 8;
/// NATS elects a leader 4 to 9 s after the last one's death; the rest is what ingest may add.
const BACK_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_three_dies_under_load_and_service_comes_back_by_itself() {
    let scratch = Scratch::new("cluster").unwrap();
    let mut cluster = Cluster::start(scratch.path()).unwrap();
    let setup = DoorSetup {
        nats: "replicas = 3\nrequire = [\"replicas\", \"settings\", \"duplicates\"]".into(),
        nats_url: Some(cluster.url()),
        no_nats: true,
        ..DoorSetup::default()
    };
    let mut door = Door::start(setup).await.ready().await;
    let load = Load::start(&door, CLIENTS, Duration::from_millis(4));
    load.wait_for(200, PATIENCE).await;
    // In a short run beside other tests one of three is enough: a vote may be split, and the machine is busy.
    let (mut took, kills) = (Vec::new(), if long_run() { 5 } else { 3 });
    for _ in 0..kills {
        let leader = cluster.leader("LEADPULSE_EVENTS").await.unwrap();
        let leader = cluster.name_of(&leader);
        cluster.kill9(leader);
        // Each client had one on its way at most: so many do not count, the next are another leader's.
        let back = load.wait_for(20 + CLIENTS as u64, PATIENCE).await;
        eprintln!("the leader `{leader}` was killed; 20 webhooks taken in {back:?} later");
        took.push(back);
        door.nats_url = cluster.url_beside(leader);
        cluster.restart(leader).unwrap();
        wait_until("there is a leader", PATIENCE, async || {
            cluster.leader("LEADPULSE_EVENTS").await.is_ok()
        })
        .await;
        load.wait_for(200, PATIENCE).await;
        if !long_run() && back < BACK_WITHIN {
            break;
        }
    }
    let in_time = |back: &&Duration| **back < BACK_WITHIN;
    let enough = if long_run() { kills } else { 1 };
    assert!(took.iter().filter(in_time).count() >= enough, "service was back after {took:?}");
    load.assert_answered_in_time();
    let lost = door.metric("ingest_streams_lost_total", &[]);
    assert_eq!(lost, 0.0, "another leader has the same stream");
    let seen = load.end().await;
    audit(&door, &seen).await;
}
