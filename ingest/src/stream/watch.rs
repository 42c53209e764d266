//! The broker, looked at again and again: is there a server, has it the streams, does it keep what is
//! promised?

use std::{
    convert::Infallible,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use async_nats::jetstream::stream::Config;
use leadpulse_service::{
    config::Promise,
    health::{Dependency, Health, Need},
};
use tokio::{
    sync::watch as latest,
    time::{sleep, timeout},
};
use tracing::{info, warn};

use super::{
    BrokenPromise, Broker, NO_CONNECTION,
    durability::{self, DiskSync, Finding, Seen},
    followed::Followed,
    monitor,
};

/// How often the broker is looked at, and how long it may take to answer.
const EVERY: Duration = Duration::from_secs(1);
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const WITHIN: Duration = Duration::from_secs(2);

const RECORD: (&str, &str) = (
    "lost_record",
    "the events that it held are lost here; webhooks are taken into the new one; put the last export \
     back with `projector import`, and see \"NATS is lost\" in docs/operations.md",
);
const QUARANTINE: (&str, &str) = (
    "lost_quarantine",
    "what was refused before can't be released any more; repair it through monday.com's API",
);

/// Why no event can be published now.
enum Away {
    Silent(String),
    Breaks(String),
}

impl Broker {
    /// Which of the promises the server breaks that is there now, for a command that publishes.
    pub(crate) async fn check(&self, required: &[Promise]) -> Result<(), BrokenPromise> {
        if required.is_empty() {
            return Ok(());
        }
        let [asked, _] = &self.definitions;
        let stream = self.jetstream.get_stream(&asked.name).await;
        let stream = stream.map_err(|error| BrokenPromise(error.to_string()))?;
        let server = self.client.server_info();
        let sync = match &self.config.monitor {
            Some(address) => monitor::ask(address, &server).await.ok(),
            None => None,
        };
        let got = &stream.cached_info().config;
        let seen =
            Seen { version: &server.version, max_payload: server.max_payload, asked, got, sync };
        let broken = broken(&durability::findings(&seen), required);
        broken.map_or(Ok(()), |broken| Err(BrokenPromise(broken)))
    }

    /// Keeps the health of the broker up to date, for ever; ends only if the first server that is met
    /// breaks a required promise.
    pub async fn watch(self, health: Health) -> BrokenPromise {
        let (found, quarantine) = latest::channel(false);
        let [events, refused] = &self.definitions;
        let watch = Watch {
            broker: &self,
            health: &health,
            dependency: health.dependency("nats", Need::Required),
            record: Followed::new(&self.jetstream, events, &health, RECORD),
            quarantine,
            connection: NO_CONNECTION,
            sync: None,
            said: None,
        };
        let refused = Followed::new(&self.jetstream, refused, &health, QUARANTINE);
        tokio::select! {
            broken = watch.keep_looking() => broken,
            never = self.watch_quarantine(refused, found) => match never {},
        }
    }

    /// Webhooks do not wait for the quarantine: in a cluster it has a leader of its own.
    async fn watch_quarantine(
        &self,
        mut quarantine: Followed<'_>,
        found: latest::Sender<bool>,
    ) -> Infallible {
        let mut said = Vec::new();
        loop {
            let got = match self.is_connected() {
                true => timeout(WITHIN, quarantine.find_or_create()).await.ok(),
                false => None,
            };
            if let Some(Ok(got)) = &got {
                let drift = durability::drift(quarantine.definition, got);
                if drift != said {
                    for setting in &drift {
                        let stream = &quarantine.definition.name;
                        warn!(%stream, "{setting}; see `ingest streams plan`");
                    }
                    said = drift;
                }
                found.send_replace(true);
            }
            sleep(if matches!(got, Some(Ok(_))) { EVERY } else { AGAIN_AFTER }).await;
        }
    }
}

struct Watch<'b> {
    broker: &'b Broker,
    health: &'b Health,
    dependency: Dependency,
    record: Followed<'b>,
    /// The quarantine has been found once.
    quarantine: latest::Receiver<bool>,
    /// The connection that was looked at last.
    connection: u64,
    /// What its server says of its disk, once it has said it.
    sync: Option<DiskSync>,
    /// What was said of its durability.
    said: Option<(String, Vec<Finding>)>,
}

impl Watch<'_> {
    async fn keep_looking(mut self) -> BrokenPromise {
        let (mut was_up, mut ever_up) = (false, false);
        let mut connections = self.broker.connections.clone();
        loop {
            let began = Instant::now();
            // A server that was away for less than the time between two looks was away all the same.
            let connection = *connections.borrow_and_update();
            if connection != self.connection {
                (self.connection, self.sync, self.said) = (connection, None, None);
            }
            let seen = match timeout(WITHIN, self.look()).await {
                Ok(seen) => seen,
                Err(_) => Err(Away::Silent("the broker does not answer".to_owned())),
            };
            let admitted = if seen.is_ok() { connection } else { NO_CONNECTION };
            self.broker.admitted.store(admitted, Ordering::Relaxed);
            match seen {
                Ok(()) => {
                    (was_up, ever_up) = (true, true);
                    let version = &self.broker.client.server_info().version;
                    self.dependency.is_of_version(version);
                    self.dependency.up(Some(began.elapsed()), format!("nats-server {version}"));
                }
                Err(Away::Breaks(promise)) if !ever_up => return BrokenPromise(promise),
                Err(Away::Breaks(reason) | Away::Silent(reason)) => {
                    if was_up {
                        warn!(%reason, "the broker is away");
                    }
                    was_up = false;
                    self.dependency.down(reason);
                }
            }
            tokio::select! {
                () = sleep(if was_up { EVERY } else { AGAIN_AFTER }) => {}
                Ok(()) = connections.changed() => {}
            }
        }
    }

    /// Is there a server, has it the streams, and does it keep what is required? A stream may be changed
    /// at any time, so its promises are read at each look.
    async fn look(&mut self) -> Result<(), Away> {
        if !self.broker.is_connected() {
            return Err(Away::Silent("not connected".to_owned()));
        }
        let got = self.record.find_or_create().await.map_err(Away::Silent)?;
        self.ask_for_sync().await;
        self.judge(&got)?;
        // A start is over when both streams are there; afterwards only the record counts.
        let found = self.quarantine.wait_for(|found| *found).await;
        found.map(|_| ()).map_err(|_| Away::Silent("nobody looks at the quarantine".to_owned()))
    }

    /// A server keeps its answer for as long as it runs, so it is asked once.
    async fn ask_for_sync(&mut self) {
        let (None, Some(address)) = (self.sync, &self.broker.config.monitor) else { return };
        match monitor::ask(address, &self.broker.client.server_info()).await {
            Ok(sync) => self.sync = Some(sync),
            Err(reason) if self.said.is_none() => {
                warn!(%reason, "unknown how often the disk is synced");
            }
            Err(_) => {}
        }
    }

    /// Says what an acknowledgement is worth here when that has changed, and whether it is enough.
    fn judge(&mut self, got: &Config) -> Result<(), Away> {
        let server = self.broker.client.server_info();
        let seen = Seen {
            version: &server.version,
            max_payload: server.max_payload,
            asked: self.record.definition,
            got,
            sync: self.sync,
        };
        let found = (durability::line(&seen), durability::findings(&seen));
        let required = |finding: &Finding| self.broker.config.require.contains(&finding.promise);
        if self.said.as_ref() != Some(&found) {
            let (line, findings) = &found;
            self.health.fact("durability", durability::fact(line, findings));
            info!("durability: {line}");
            for finding in findings.iter().filter(|finding| finding.fault.is_some()) {
                let (promise, required) = (finding.promise.name(), required(finding));
                warn!(promise, required, "{finding}");
            }
        }
        let broken = broken(&found.1, &self.broker.config.require);
        self.said = Some(found);
        broken.map_or(Ok(()), |broken| Err(Away::Breaks(broken)))
    }
}

/// The required promises that do not hold, if there are any.
fn broken(findings: &[Finding], required: &[Promise]) -> Option<String> {
    let broken: Vec<_> = findings
        .iter()
        .filter(|finding| finding.fault.is_some() && required.contains(&finding.promise))
        .map(ToString::to_string)
        .collect();
    (!broken.is_empty()).then(|| broken.join("; "))
}
