//! The server's monitoring page: the one place that tells how often it syncs to disk.

use std::time::Duration;

use async_nats::ServerInfo;
use leadpulse_service::monitor::page;
use serde::Deserialize;

use super::durability::DiskSync;

/// What a server does that says nothing of it.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
struct Varz {
    server_id: String,
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

/// Asks `http://HOST:PORT/varz`. One of a cluster's servers may answer for the others, whose settings are meant to be
/// the same; a server alone must be the one of the connection.
pub(super) async fn ask(address: &str, server: &ServerInfo) -> Result<DiskSync, String> {
    let page = page(address, "/varz").await?;
    let (id, sync) =
        read(&page).ok_or_else(|| format!("{address} is no monitoring page of a NATS server"))?;
    if server.cluster.is_none() && id != server.server_id {
        return Err(format!("{address} is the monitoring page of another server"));
    }
    Ok(sync)
}

fn read(varz: &str) -> Option<(String, DiskSync)> {
    let Varz { server_id, jetstream } = serde_json::from_str(varz).ok()?;
    let sync = match jetstream.config {
        Settings { sync_always: true, .. } => DiskSync::Always,
        Settings { sync_interval, .. } => {
            DiskSync::Every(sync_interval.map_or(DEFAULT_INTERVAL, Duration::from_nanos))
        }
    };
    Some((server_id, sync))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_the_interval() {
        let page = |config: &str| {
            let page = format!(r#"{{"server_id":"A","jetstream":{{"config":{config}}}}}"#);
            read(&page).map(|(_, sync)| sync)
        };
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
