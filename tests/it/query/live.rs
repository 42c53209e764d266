//! The stream of hints.

use std::time::Duration;

use tests::harness::PATIENCE;

use super::fixture::Reads;

struct Listener(reqwest::Response, String);

impl Listener {
    async fn connect(reads: &Reads, last: Option<&str>) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request =
            client.get(format!("{}/v1/stream", reads.api.url())).bearer_auth(&reads.key);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self(response, String::new())
    }

    /// The next event, whole.
    async fn next(&mut self) -> String {
        loop {
            if let Some((event, rest)) = self.1.split_once("\n\n") {
                let event = event.to_owned();
                self.1 = rest.to_owned();
                return event;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.0.chunk()).await.unwrap().unwrap();
            self.1.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).unwrap());
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
