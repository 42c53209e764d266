//! The server's monitoring page: the one place that tells how often it syncs to disk.

use std::{io, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::durability::DiskSync;

const WITHIN: Duration = Duration::from_secs(1);
const MAX_BYTES: u64 = 1024 * 1024;
/// What a server does that says nothing of it.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Varz {
    jetstream: JetStream,
}

#[derive(Deserialize)]
struct JetStream {
    config: Settings,
}

#[derive(Deserialize)]
struct Settings {
    sync_interval: Option<u64>,
    #[serde(default)]
    sync_always: bool,
}

/// Asks `http://HOST:PORT/varz`.
pub(super) async fn ask(address: &str) -> Result<DiskSync, String> {
    let page = match timeout(WITHIN, get(address, "/varz")).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return Err(format!("{address} can't be asked: {error}")),
        Err(_) => return Err(format!("{address} does not answer")),
    };
    let body = page.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    read(body).ok_or_else(|| format!("{address} is no monitoring page of a NATS server"))
}

fn read(varz: &str) -> Option<DiskSync> {
    let settings = serde_json::from_str::<Varz>(varz).ok()?.jetstream.config;
    Some(match settings {
        Settings { sync_always: true, .. } => DiskSync::Always,
        Settings { sync_interval, .. } => {
            DiskSync::Every(sync_interval.map_or(DEFAULT_INTERVAL, Duration::from_nanos))
        }
    })
}

/// HTTP/1.0, whose answers end with their connection: one page does not need a client library.
async fn get(address: &str, path: &str) -> io::Result<String> {
    let host = address.strip_prefix("http://").unwrap_or(address);
    let mut stream = TcpStream::connect(host).await?;
    let request = format!("GET {path} HTTP/1.0\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.take(MAX_BYTES).read_to_string(&mut page).await?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_the_interval() {
        let page = |config: &str| read(&format!(r#"{{"x":1,"jetstream":{{"config":{config}}}}}"#));
        assert_eq!(
            page(r#"{"sync_interval":5000000000}"#),
            Some(DiskSync::Every(Duration::from_secs(5)))
        );
        assert_eq!(
            page(r#"{"sync_interval":5000000000,"sync_always":true}"#),
            Some(DiskSync::Always)
        );
        assert_eq!(page("{}"), Some(DiskSync::Every(DEFAULT_INTERVAL)));
        assert_eq!(read("<html>"), None);
    }
}
