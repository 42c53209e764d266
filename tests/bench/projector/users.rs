//! What it costs to write the users of an org.

use std::time::Instant;

use projector::{event::UserEvent, store};

use crate::{
    report::{milliseconds, percentile, table},
    stage::Stage,
};

const USERS: i64 = 100;

/// 100 users by one statement: new ones, and all of them again with later snapshots.
pub(super) async fn users(stage: &Stage) {
    let pool = stage.new_database("bench_users").await;
    let mut connection = pool.acquire().await.unwrap();
    let (mut new, mut again) = (Vec::new(), Vec::new());
    for round in 0..50 {
        for (times, took) in [&mut new, &mut again].into_iter().enumerate() {
            let users: Vec<UserEvent> =
                (0..USERS).map(|n| snapshot(round * USERS + n, times)).collect();
            let started = Instant::now();
            store::upsert_users(&mut connection, &users).await.unwrap();
            took.push(started.elapsed());
        }
    }
    let mut rows = Vec::new();
    for (name, mut took) in [("new", new), ("known, changed", again)] {
        let name = format!("{USERS} users, {name}");
        let (middle, high) = (percentile(&mut took, 0.5), percentile(&mut took, 0.99));
        rows.push(vec![name, milliseconds(middle), milliseconds(high)]);
    }
    println!("\none statement, with its commit (earlier product: 100 statements, about 80 ms)");
    table(&["upserted", "median", "p99"], &rows);
}

fn snapshot(user_id: i64, times: usize) -> UserEvent {
    UserEvent {
        org_id: "bench".to_owned(),
        user_id,
        name: Some(format!("User {user_id}, {times}")),
        email: Some(format!("user.{user_id}@example.com")),
        kind: Some("member".to_owned()),
        status: Some("active".to_owned()),
        occurred_at: i64::try_from(times).unwrap(),
        event_id: format!("501:{user_id}-{times}"),
        seq: 1,
    }
}
