//! The load generator of reads: keep-alive connections over bare sockets, each with one request at a time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::report::percentile;

/// Gives the n-th request of a run, whole.
pub(crate) type Requests = Arc<dyn Fn(u64) -> Arc<[u8]> + Send + Sync>;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub port: u16,
    pub connections: usize,
    pub span: Duration,
    /// Requests at most; no bound, if nothing is said.
    pub most: Option<u64>,
    /// Requests a second over all connections; as many as go, if nothing is said. At a given rate the time
    /// of a request runs from when it was due.
    pub rate: Option<f64>,
}

#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub rate: f64,
    pub times: Vec<Duration>,
    /// How many answers had which status and came from where.
    pub origins: BTreeMap<(u16, String), usize>,
    slowest: Option<Slowest>,
}

/// Which request took longest.
#[derive(Debug, Clone)]
struct Slowest {
    took: Duration,
    /// Since the first request.
    after: Duration,
    n: u64,
    origin: String,
}

impl Figures {
    pub(crate) fn at(&mut self, share: f64) -> f64 {
        percentile(&mut self.times, share).as_secs_f64() * 1e3
    }

    /// `p50 / p99 ms`.
    pub(crate) fn spread(&mut self) -> String {
        format!("{:.1} / {:.1} ms", self.at(0.5), self.at(0.99))
    }

    /// The request that took longest, by what was asked and when.
    pub(crate) fn slowest(&self, requests: &Requests) -> String {
        let Some(Slowest { took, after, n, origin }) = &self.slowest else {
            return "none".to_owned();
        };
        let request = requests(*n);
        let path = String::from_utf8_lossy(&request).split(' ').nth(1).unwrap_or("").to_owned();
        format!(
            "{:.1} ms, {path} after {:.1} s ({origin})",
            took.as_secs_f64() * 1e3,
            after.as_secs_f64()
        )
    }

    fn add(&mut self, other: Self) {
        self.times.extend(other.times);
        for (origin, count) in other.origins {
            *self.origins.entry(origin).or_default() += count;
        }
        let both = self.slowest.take().into_iter().chain(other.slowest);
        self.slowest = both.max_by_key(|slowest| slowest.took);
    }

    pub(crate) fn from(&self, status: u16, origin: &str) -> usize {
        self.origins.get(&(status, origin.to_owned())).copied().unwrap_or(0)
    }

    fn good(&self) -> usize {
        self.origins.iter().filter(|(origin, _)| origin.0 == 200).map(|(_, n)| n).sum()
    }

    /// Answers with 200 a second: under overload the rest is refused.
    pub(crate) fn answered(&self) -> f64 {
        self.rate * self.good() as f64 / self.times.len() as f64
    }

    /// How many of all were not answered with 200.
    pub(crate) fn refused(&self) -> String {
        format!("{} of {}", self.refused_count(), self.times.len())
    }

    pub(crate) fn refused_count(&self) -> usize {
        self.times.len() - self.good()
    }

    /// Had nearly every answer this status, and did it come from there? An answer may end meanwhile.
    pub(crate) fn are_all(&self, status: u16, origin: &str) -> bool {
        self.from(status, origin) as f64 > 0.999 * self.times.len() as f64
    }
}

impl Load {
    pub(crate) fn new(port: u16, connections: usize, span: Duration) -> Self {
        Self { port, connections, span, most: None, rate: None }
    }

    pub(crate) async fn run(self, requests: Requests) -> Figures {
        // All connections stand before the clock starts: what is measured is requests.
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(Client::connect(self.port).await);
        }
        let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
        let mut set = JoinSet::new();
        for (place, client) in clients.into_iter().enumerate() {
            let (requests, next) = (Arc::clone(&requests), Arc::clone(&next));
            set.spawn(self.connection(client, place, requests, next, began));
        }
        let mut figures = Figures::default();
        while let Some(done) = set.join_next().await {
            figures.add(done.unwrap());
        }
        figures.rate = figures.times.len() as f64 / began.elapsed().as_secs_f64();
        figures
    }

    async fn connection(
        self,
        mut client: Client,
        place: usize,
        requests: Requests,
        next: Arc<AtomicU64>,
        began: Instant,
    ) -> Figures {
        let every = self.rate.map(|rate| Duration::from_secs_f64(self.connections as f64 / rate));
        let share = place as f64 / self.connections as f64;
        let mut due = began + every.unwrap_or_default().mul_f64(share);
        let mut figures = Figures::default();
        loop {
            let from = match every {
                Some(every) => {
                    let from = due;
                    due += every;
                    // Who does not pause must not come here: a timer has steps of 1 ms, also for now.
                    sleep_until(from).await;
                    from
                }
                None => Instant::now(),
            };
            if from - began >= self.span {
                return figures;
            }
            let n = next.fetch_add(1, Ordering::Relaxed);
            if self.most.is_some_and(|most| n >= most) {
                return figures;
            }
            let answer = client.ask(&requests(n)).await;
            let took = from.elapsed();
            figures.times.push(took);
            if figures.slowest.as_ref().is_none_or(|slowest| slowest.took < took) {
                let (after, origin) = (from - began, answer.1.clone());
                figures.slowest = Some(Slowest { took, after, n, origin });
            }
            match figures.origins.get_mut(&answer) {
                Some(count) => *count += 1,
                None => _ = figures.origins.insert(answer, 1),
            }
        }
    }
}

/// The times of the measurement with the middle p99, and the least and the greatest p99.
pub(crate) fn middle(made: &mut [Figures]) -> String {
    let mut times: Vec<_> =
        made.iter_mut().map(|figures| (figures.at(0.99), figures.spread())).collect();
    times.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (least, most) = (times[0].0, times[times.len() - 1].0);
    format!("{} ({least:.1} to {most:.1})", times[times.len() / 2].1)
}

/// One connection.
pub(crate) struct Client {
    socket: TcpStream,
    buffer: Vec<u8>,
    head: usize,
}

impl Client {
    pub(crate) async fn connect(port: u16) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, buffer: Vec::with_capacity(64 * 1024), head: 0 }
    }

    /// The status, and where the answer came from.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> (u16, String) {
        self.socket.write_all(request).await.unwrap();
        self.buffer.clear();
        let head = loop {
            self.more().await;
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
        };
        self.head = head + 4;
        let text = std::str::from_utf8(&self.buffer[..head]).unwrap();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let origin = field("cache-status: ").unwrap_or_default().to_owned();
        let body: usize = field("content-length: ").map_or(0, |length| length.parse().unwrap());
        let body = if status == 304 { 0 } else { body };
        while self.buffer.len() < self.head + body {
            self.more().await;
        }
        (status, origin)
    }

    pub(crate) async fn more(&mut self) -> &[u8] {
        let before = self.buffer.len();
        let read = self.socket.read_buf(&mut self.buffer).await.unwrap();
        assert!(read > 0, "the connection was closed");
        &self.buffer[before..]
    }

    /// The body of the last answer.
    pub(crate) fn body(&self) -> &[u8] {
        &self.buffer[self.head..]
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let text = std::str::from_utf8(&self.buffer[..self.head]).unwrap();
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned))
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
