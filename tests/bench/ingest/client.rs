//! The load generator of webhooks: keep-alive connections over bare sockets, each with one request at a time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::pace::{Figures, Pace};

/// No two events of one run of the benchmark are the same.
static NEXT: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub port: u16,
    pub connections: usize,
    pub span: Duration,
    /// Requests a second over all connections; as many as go, if nothing is said. At a given rate the time
    /// of a request runs from when it was due.
    pub rate: Option<f64>,
}

impl Load {
    pub(super) async fn warm_up(self) {
        let request = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        for _ in 0..1000 {
            socket.write_all(request.as_bytes()).await.unwrap();
            assert_eq!(answer(&mut socket, &mut vec![0; 4096]).await, 200);
        }
    }

    /// Every request must be answered with 200.
    pub(super) async fn run(self, head: &str) -> Figures {
        // All connections stand before the clock starts: what is measured is requests.
        let mut sockets = Vec::new();
        for _ in 0..self.connections {
            sockets.push(TcpStream::connect(("127.0.0.1", self.port)).await.unwrap());
        }
        let began = Instant::now();
        let mut set = JoinSet::new();
        for (connection, socket) in sockets.into_iter().enumerate() {
            let head = head.to_owned();
            set.spawn(async move { self.connection(socket, connection, &head, began).await });
        }
        Figures::of(set.join_all().await.concat(), began.elapsed())
    }

    async fn connection(
        self,
        mut socket: TcpStream,
        connection: usize,
        head: &str,
        began: Instant,
    ) -> Vec<Duration> {
        socket.set_nodelay(true).unwrap();
        let mut pace = Pace::new(self.rate, connection, self.connections, began);
        let (mut times, mut buffer) = (Vec::new(), vec![0; 4096]);
        while began.elapsed() < self.span {
            let from = pace.turn().await;
            let mut request = head.to_owned();
            request.push_str(&body());
            socket.write_all(request.as_bytes()).await.unwrap();
            let status = answer(&mut socket, &mut buffer).await;
            assert_eq!(status, 200, "a webhook was not taken in");
            times.push(from.elapsed());
        }
        times
    }
}

/// An event of 1 KB that there was not before.
fn body() -> String {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let head = format!(
        r#"{{"event":{{"app":"monday","type":"update_name","triggerTime":"2026-03-02T10:10:40.628Z","subscriptionId":503,"isRetry":false,"userId":7001,"boardId":9001,"pulseId":{},"triggerUuid":"{n:032x}","value":{{"name":""#,
        n % 5000
    );
    let tail = r#""}}}"#;
    let padding = super::BODY_BYTES - head.len() - tail.len();
    format!("{head}{}{tail}", "x".repeat(padding))
}

/// Reads one whole answer; gives its status.
async fn answer(socket: &mut TcpStream, buffer: &mut [u8]) -> u16 {
    let mut read = 0;
    loop {
        let more = socket.read(&mut buffer[read..]).await.unwrap();
        assert!(more > 0, "the connection was closed");
        read += more;
        if let Some(status) = whole(&buffer[..read]) {
            return status;
        }
    }
}

fn whole(bytes: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    (body.len() >= length.parse().ok()?).then(|| head.split(' ').nth(1)?.parse().ok())?
}

/// One request, for those who wait for a server.
pub(super) async fn status(port: u16, path: &str) -> Option<u16> {
    let ask = async {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        socket.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).await.ok()?;
        text.split(' ').nth(1)?.parse().ok()
    };
    timeout(Duration::from_secs(1), ask).await.ok().flatten()
}
