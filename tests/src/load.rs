//! A steady load of unique signed webhooks, and the account of what became of each.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Client;
use tokio::task::JoinSet;

use crate::{
    door::{Door, TOKEN},
    harness::SOURCE,
};

/// What a client saw of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 200, with this place in the stream.
    Acknowledged(u64),
    /// 401: the client forged it.
    Refused,
    /// 503 after this many milliseconds, or another error of the way.
    Unknown,
}

/// Clients that send until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    target: Arc<Mutex<String>>,
    seen: Arc<Mutex<BTreeMap<String, Outcome>>>,
    acknowledged: Arc<AtomicU64>,
    long_waits: Arc<Mutex<Vec<Duration>>>,
    clients: JoinSet<()>,
}

/// Answers that came later than this are remembered.
const LONG_WAIT: Duration = Duration::from_secs(2);

impl Load {
    /// `clients` at once, each with an event every `pause`; every tenth is forged.
    pub fn start(door: &Door, clients: usize, pause: Duration) -> Self {
        let mut load = Self {
            stop: Arc::default(),
            target: Arc::new(Mutex::new(door.ingest.url().to_owned())),
            seen: Arc::default(),
            acknowledged: Arc::default(),
            long_waits: Arc::default(),
            clients: JoinSet::new(),
        };
        for client in 0..clients {
            let (stop, target) = (Arc::clone(&load.stop), Arc::clone(&load.target));
            let (seen, acknowledged) = (Arc::clone(&load.seen), Arc::clone(&load.acknowledged));
            let long_waits = Arc::clone(&load.long_waits);
            load.clients.spawn(async move {
                let http = Client::builder()
                    .no_proxy()
                    .timeout(Duration::from_secs(10))
                    .build()
                    .expect("a client");
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = format!("c{client}n{n}");
                    let forged = n % 10 == 9;
                    let url = target.lock().expect("no panic").clone();
                    let began = Instant::now();
                    let outcome = send(&http, &url, &id, forged).await;
                    if let Outcome::Acknowledged(_) = outcome {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                    let took = began.elapsed();
                    if took > LONG_WAIT {
                        long_waits.lock().expect("no panic").push(took);
                    }
                    seen.lock().expect("no panic").insert(id, outcome);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        load
    }

    /// `ingest` listens elsewhere now.
    pub fn aim(&self, door: &Door) {
        *self.target.lock().expect("no panic") = door.ingest.url().to_owned();
    }

    /// 200s so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// An answer comes within five seconds, whatever becomes of the broker. Of those that waited for long, a quarter
    /// may have met a machine that pauses.
    pub fn assert_answered_in_time(&self) {
        let mut waits = self.long_waits.lock().expect("no panic").clone();
        waits.sort_unstable();
        let most = waits.get(waits.len() * 3 / 4);
        assert!(most.is_none_or(|most| *most < Duration::from_secs(5)), "{waits:?}");
    }

    /// Waits until `more` webhooks were acknowledged from now on; says how long it took.
    pub async fn wait_for(&self, more: u64, patience: Duration) -> Duration {
        let (began, target) = (Instant::now(), self.acknowledged() + more);
        while self.acknowledged() < target {
            assert!(began.elapsed() < patience, "no {more} webhooks taken in within {patience:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    /// Stops the clients; each finishes the request that it has.
    pub async fn end(mut self) -> BTreeMap<String, Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
        std::mem::take(&mut self.seen.lock().expect("no panic"))
    }
}

async fn send(http: &Client, url: &str, id: &str, forged: bool) -> Outcome {
    let body = format!(
        r#"{{"event":{{"type":"update_name","boardId":9001,"pulseId":42,"subscriptionId":7,"triggerUuid":"{id}"}}}}"#
    );
    let request = if forged {
        http.post(format!("{url}/webhooks/monday/{SOURCE}")).header("authorization", "forged")
    } else {
        http.post(format!("{url}/webhooks/monday/by-token/{TOKEN}"))
    };
    let Ok(answer) = request.body(body).send().await else { return Outcome::Unknown };
    let seq = answer.headers().get("leadpulse-seq").and_then(|seq| seq.to_str().ok()?.parse().ok());
    match (answer.status().as_u16(), seq) {
        (200, Some(seq)) => Outcome::Acknowledged(seq),
        (401, None) => Outcome::Refused,
        (503, None) => Outcome::Unknown,
        (status, seq) => panic!("{id}: {status}, {seq:?}"),
    }
}

/// Every 200 stands in the stream exactly once, where the client was told; nothing that was refused does;
/// and nobody else's events do.
pub async fn audit(door: &Door, seen: &BTreeMap<String, Outcome>) {
    let mut places: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (seq, message) in door.messages("LEADPULSE_EVENTS").await {
        let id = message.id.expect("every message has an id");
        places.entry(id).or_default().push(seq);
    }
    let mut counts = [0_usize; 4];
    for (id, outcome) in seen {
        let found = places.remove(&format!("demo:7:{id}")).unwrap_or_default();
        match outcome {
            Outcome::Acknowledged(seq) => {
                counts[0] += 1;
                assert_eq!(found, [*seq], "{id} was acknowledged");
            }
            Outcome::Refused => {
                counts[1] += 1;
                assert!(found.is_empty(), "{id} was refused and is in the stream");
            }
            Outcome::Unknown => {
                counts[2] += 1;
                counts[3] += found.len();
                assert!(found.len() <= 1, "{id} stands in the stream {} times", found.len());
            }
        }
    }
    assert!(places.is_empty(), "nobody has sent these: {places:?}");
    let [acknowledged, refused, unknown, stored] = counts;
    eprintln!(
        "{acknowledged} acknowledged, {refused} refused, {unknown} unknown ({stored} of them stored)"
    );
    assert!(acknowledged > 0, "nothing was acknowledged");
}
