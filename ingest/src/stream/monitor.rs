//! The server's monitoring page: the one place that tells how often it syncs to disk.

use std::time::Duration;

use leadpulse_service::monitor::page;
use serde::Deserialize;

use super::durability::DiskSync;

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
    let page = page(address, "/varz").await?;
    read(&page).ok_or_else(|| format!("{address} is no monitoring page of a NATS server"))
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
