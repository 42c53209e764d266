//! The stream of hints.

use std::time::Duration;

use tests::harness::{PATIENCE, wait_until};

use super::fixture::Reads;

struct Listener(reqwest::Response, String);

impl Listener {
    async fn connect(reads: &Reads, last: Option<&str>) -> Self {
        Self::connect_as(&reads.key, reads, last).await
    }

    async fn connect_as(key: &str, reads: &Reads, last: Option<&str>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.get(format!("{}/v1/stream", reads.api.url())).bearer_auth(key);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self(response, String::new())
    }

    /// The next event, whole.
    async fn next(&mut self) -> String {
        self.next_if_any().await.expect("the stream goes on")
    }

    /// None at the end of the stream.
    async fn next_if_any(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let event = event.to_owned();
                self.1 = rest.to_owned();
                return Some(event);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.0.chunk()).await.unwrap().unwrap();
            self.1.push_str(std::str::from_utf8(&chunk?).unwrap());
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
        let event = listener.next().await;
        assert!(
            event.contains("event: changed") && event.contains(&format!("id: {seq}")),
            "{event}"
        );
    }
    assert!(Listener::connect(&reads, Some("5")).await.next().await.contains("id: 6"));
    assert!(Listener::connect(&reads, Some("4")).await.next().await.contains("event: resync"));
    let mut known = Listener::connect(&reads, Some("6")).await;
    reads.applied(7).await;
    reads.publish().await;
    assert!(known.next().await.contains("id: 7"), "nothing was missed");
    assert!(reads.api.stop(Duration::from_secs(5)), "open streams do not hold up the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_hears_nothing_more_also_on_a_stream_that_it_has_open() {
    let reads = Reads::start(false, &[]).await;
    let key = reads.ground.create_key("demo", &[]);
    let mut listener = Listener::connect_as(&key, &reads, None).await;
    reads.applied(5).await;
    reads.publish().await;
    assert!(listener.next().await.contains("id: 5"));
    assert!(reads.ground.run("query-api", &["keys", "revoke", &key[..11]]).status.success());
    wait_until("the revocation is known", PATIENCE, async || {
        reads.get_as(&key, "/v1/leads", &[]).await.status == 401
    })
    .await;
    reads.applied(6).await;
    reads.publish().await;
    assert_eq!(listener.next_if_any().await, None);
}
