//! nats-server's monitoring pages: they tell what its own protocol does not, how often it syncs to disk and
//! whether it can write.

use std::{io, time::Duration};

use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const WITHIN: Duration = Duration::from_secs(1);
const MAX_BYTES: u64 = 1024 * 1024;

/// The body of a page of `http://HOST:PORT`.
pub async fn page(address: &str, path: &str) -> Result<String, String> {
    match timeout(WITHIN, get(address, path)).await {
        Ok(Ok(page)) => {
            Ok(page.split_once("\r\n\r\n").map_or_else(String::new, |(_, body)| body.to_owned()))
        }
        Ok(Err(error)) => Err(format!("{address} can't be asked: {error}")),
        Err(_) => Err(format!("{address} does not answer")),
    }
}

#[derive(Deserialize)]
struct Healthz {
    status: String,
    error: Option<String>,
}

/// What the server says is wrong with itself; nothing if all is well.
pub async fn complaint(address: &str) -> Result<Option<String>, String> {
    read(&page(address, "/healthz").await?)
        .ok_or_else(|| format!("{address} is no monitoring page of a NATS server"))
}

fn read(healthz: &str) -> Option<Option<String>> {
    let Healthz { status, error } = serde_json::from_str(healthz).ok()?;
    Some((status != "ok").then(|| error.unwrap_or(status)))
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

    /// As nats-server 2.14.4 says it.
    #[test]
    fn a_server_that_can_not_write_says_so() {
        let full = r#"{"status":"unavailable","error":"JetStream stream '$G \u003e LEADPULSE_EVENTS' write error: write /x/2.blk: no space left on device"}"#;
        let said = read(full).unwrap().unwrap();
        assert!(said.ends_with("no space left on device"), "{said}");
        assert_eq!(read(r#"{"status":"ok"}"#), Some(None));
        assert_eq!(read(r#"{"status":"error"}"#), Some(Some("error".to_owned())));
        assert_eq!(read("<html>"), None);
    }
}
