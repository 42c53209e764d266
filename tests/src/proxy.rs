//! A TCP proxy that breaks the way to a server on demand: cut, frozen or slow.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

/// What the network does to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    Fair,
    /// Nothing comes through, and nobody is told.
    Frozen,
    /// Connections are broken, and new ones refused.
    Cut,
    /// Each piece arrives this much later.
    Slow(Duration),
}

pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    carried: Arc<AtomicU64>,
}

impl Proxy {
    /// Stands in front of `127.0.0.1:port`.
    pub async fn start(port: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (weather, seen) = watch::channel(Weather::Fair);
        let carried = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&carried);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *seen.borrow() == Weather::Cut {
                    continue;
                }
                tokio::spawn(carry(client, port, seen.clone(), Arc::clone(&counter)));
            }
        });
        Ok(Self { address, weather, carried })
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// Bytes that came through, in both directions.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

async fn carry(
    client: TcpStream,
    port: u16,
    weather: watch::Receiver<Weather>,
    carried: Arc<AtomicU64>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    client.set_nodelay(true).ok();
    server.set_nodelay(true).ok();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cut = weather.clone();
    tokio::select! {
        () = pump(from_client, to_server, weather.clone(), &carried) => {}
        () = pump(from_server, to_client, weather, &carried) => {}
        _ = cut.wait_for(|weather| *weather == Weather::Cut) => {}
    }
}

async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    carried: &AtomicU64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let now = *weather.borrow();
        match now {
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::Frozen => {
                if weather.wait_for(|weather| *weather != Weather::Frozen).await.is_err() {
                    return;
                }
            }
            Weather::Fair | Weather::Cut => {}
        }
        carried.fetch_add(read as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
