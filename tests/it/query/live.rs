//! The stream of hints.

use std::time::{Duration, Instant};

use tests::harness::{PATIENCE, Service, wait_until};

use super::fixture::Reads;

pub(super) struct Listener(reqwest::Response, String);

impl Listener {
    async fn connect(reads: &Reads, last: Option<&str>) -> Self {
        Self::connect_as(&reads.key, reads, last).await
    }

    async fn connect_as(key: &str, reads: &Reads, last: Option<&str>) -> Self {
        Self::open(key, &reads.api, "/v1/stream", last).await
    }

    pub(super) async fn open(key: &str, api: &Service, path: &str, last: Option<&str>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(format!("{}{path}", api.url())).bearer_auth(key);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self(response, String::new())
    }

    /// The next event, whole.
    pub(super) async fn next(&mut self) -> String {
        self.next_if_any().await.expect("the stream goes on")
    }

    /// Reads on until it is told of this sequence: a change of before may be told a moment late.
    async fn hint_of(&mut self, seq: i64) {
        loop {
            let event = self.next().await;
            assert!(event.starts_with("event: changed"), "{event}");
            let id = event.lines().find_map(|line| line.strip_prefix("id: "));
            let id: i64 = id.unwrap().parse().unwrap();
            assert!(id <= seq, "{event}");
            if id == seq {
                return;
            }
        }
    }

    /// None at the end of the stream.
    async fn next_if_any(&mut self) -> Option<String> {
        tokio::time::timeout(PATIENCE, self.read()).await.unwrap()
    }

    /// None if there is no event in this time.
    pub(super) async fn next_within(&mut self, time: Duration) -> Option<String> {
        tokio::time::timeout(time, self.read()).await.ok().flatten()
    }

    async fn read(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let event = event.to_owned();
                self.1 = rest.to_owned();
                if event != ": heartbeat" {
                    return Some(event);
                }
                continue;
            }
            let chunk = self.0.chunk().await.unwrap()?;
            self.1.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_is_a_hint_and_who_comes_back_gets_what_it_missed() {
    let mut reads = Reads::start(false, &[]).await;
    let mut listener = Listener::connect(&reads, None).await;
    for seq in [5, 6] {
        reads.applied(seq).await;
        reads.publish().await;
        listener.hint_of(seq).await;
    }
    assert!(Listener::connect(&reads, Some("5")).await.next().await.contains("id: 6"));
    assert!(Listener::connect(&reads, Some("4")).await.next().await.contains("event: resync"));
    let mut known = Listener::connect(&reads, Some("6")).await;
    reads.applied(7).await;
    reads.publish().await;
    known.hint_of(7).await;
    assert!(reads.api.stop(Duration::from_secs(5)), "open streams do not hold up the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_names_the_topics_that_changed_and_who_asked_for_others_hears_nothing() {
    let reads = Reads::start(false, &[]).await;
    let metrics = reads.ground.create_key("demo", &["metrics:read"]);
    let open = async |key: &str, topics: &str| {
        Listener::open(key, &reads.api, &format!("/v1/stream{topics}"), None).await
    };
    let mut listeners = [
        (open(&reads.key, "").await, r#""topics":["leads","metrics"]"#),
        (open(&reads.key, "?topics=leads").await, r#""topics":["leads"]"#),
        (open(&metrics, "").await, r#""topics":["metrics"]"#),
    ];
    reads.applied(5).await;
    reads.publish().await;
    for (listener, topics) in &mut listeners {
        let event = listener.next().await;
        assert!(event.contains(*topics) && event.contains("id: 5"), "{event}");
    }
    // A moment apart: what happens meanwhile is told as one.
    let metrics_alone = r#""topics":["metrics"]"#;
    reads.applied(6).await;
    reads.publish_metrics().await;
    for place in [0, 2] {
        let event = listeners[place].0.next().await;
        assert!(event.contains(metrics_alone) && event.contains("id: 6"), "{event}");
    }
    let leads = "/v1/stream?topics=leads";
    let mut late = Listener::open(&reads.key, &reads.api, leads, Some("5")).await;
    reads.applied(7).await;
    reads.publish().await;
    for (listener, topics) in &mut listeners {
        let event = listener.next().await;
        assert!(event.contains(*topics) && event.contains("id: 7"), "{event}");
    }
    assert!(late.next().await.contains("id: 7"), "it had missed nothing about leads");
    let mut late = Listener::open(&reads.key, &reads.api, leads, Some("6")).await;
    assert!(late.next().await.contains("id: 7"), "it had missed that");
    for (key, topics, status) in
        [(&metrics, "leads", 403), (&reads.key, "users", 400), (&reads.key, "", 400)]
    {
        let path = format!("/v1/stream?topics={topics}");
        assert_eq!(reads.get_as(key, &path, &[]).await.status, status, "{topics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_stream_has_a_heartbeat() {
    let reads = Reads::start(false, &[]).await;
    let mut listener = Listener::connect(&reads, None).await;
    let mut said = String::new();
    while !said.contains(": heartbeat\n\n") {
        let more = tokio::time::timeout(Duration::from_secs(20), listener.0.chunk()).await;
        let more = more.expect("nothing in 20 s").unwrap().expect("the stream goes on");
        said += std::str::from_utf8(&more).unwrap();
    }
}

/// Nobody says anything on the stream meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_stream_ends_within_two_seconds_of_its_key() {
    let reads = Reads::start(false, &[]).await;
    let expired = reads.ground.create_key("demo", &[]);
    let mut of_expired = Listener::connect_as(&expired, &reads, None).await;
    let mut of_good = Listener::connect(&reads, None).await;
    // What else the machine does only adds to the time: the middle of three counts.
    let mut took = Vec::new();
    for _ in 0..3 {
        let revoked = reads.ground.create_key("demo", &[]);
        let mut of_revoked = Listener::connect_as(&revoked, &reads, None).await;
        let revoke = ["keys", "revoke", &revoked[..11]];
        assert!(reads.ground.run("query-api", &revoke).status.success());
        let started = Instant::now();
        while of_revoked.next_if_any().await.is_some() {}
        took.push(started.elapsed());
    }
    took.sort_unstable();
    assert!(took[1] < Duration::from_secs(2), "{took:?}");
    sqlx::query("update api_key set expires_at = now() + interval '1 s' where prefix = $1")
        .bind(&expired[..11])
        .execute(&reads.ground.database.pool)
        .await
        .unwrap();
    assert_eq!(of_expired.next_if_any().await, None);
    reads.applied(5).await;
    reads.publish().await;
    of_good.hint_of(5).await;
}

/// How far the read models are can't be found out for some seconds: the change is told when it can.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_could_not_be_told_at_once_is_told_later() {
    let reads = Reads::start(false, &[]).await;
    let mut listener = Listener::connect(&reads, None).await;
    reads.applied(5).await;
    let pool = &reads.ground.database.pool;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock table checkpoint in access exclusive mode")
        .execute(&mut *lock)
        .await
        .unwrap();
    reads.publish().await;
    wait_until("a look has waited for longer than it may", PATIENCE, async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database()
                 and application_name = 'query-api' and wait_event_type = 'Lock'
                 and query like '%checkpoint%' and now() - query_start > interval '2.5 s')",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    })
    .await;
    lock.rollback().await.unwrap();
    listener.hint_of(5).await;
}

/// Whatever becomes of the connection on which versions are told, who listens is told of the last one.
#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_also_while_the_connection_that_tells_them_is_cut() {
    let reads = Reads::start(false, &[]).await;
    let mut listener = Listener::connect(&reads, None).await;
    let pool = &reads.ground.database.pool;
    for seq in 1..=8 {
        sqlx::query(
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and query ilike 'listen %'",
        )
        .execute(pool)
        .await
        .unwrap();
        reads.applied(seq).await;
        reads.publish().await;
        listener.hint_of(seq).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_hears_nothing_more_also_on_a_stream_that_it_has_open() {
    let reads = Reads::start(false, &[]).await;
    let key = reads.ground.create_key("demo", &[]);
    let mut listener = Listener::connect_as(&key, &reads, None).await;
    reads.applied(5).await;
    reads.publish().await;
    listener.hint_of(5).await;
    assert!(reads.ground.run("query-api", &["keys", "revoke", &key[..11]]).status.success());
    wait_until("the revocation is known", PATIENCE, async || {
        reads.get_as(&key, "/v1/leads", &[]).await.status == 401
    })
    .await;
    reads.applied(6).await;
    reads.publish().await;
    assert_eq!(listener.next_if_any().await, None);
}
