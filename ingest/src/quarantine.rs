//! What was refused is kept for a while, so that a wrong secret loses nothing: mend the secret, verify
//! again, release (`ingest quarantine`).
//!
//! An entry shows no credential. Of a token in the URL only the digest is kept; the signature of a body
//! proves that body alone and is kept as it is; the `Authorization` header is a live credential and is kept
//! only sealed, and only where there is a key (`ingest.quarantine_key`).

pub mod entry;
pub mod release;
mod seal;
pub mod show;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use leadpulse_service::trace::TraceContext;
use metrics::counter;
use tokio::{
    sync::{Semaphore, watch},
    time::timeout,
};
use tracing::{debug, warn};

use crate::{
    answer::Refusal,
    source::{Secrets, Source},
    stream::Broker,
    verify::Proof,
};
use entry::Entry;
pub use seal::SealingKey;

/// Entries on their way at once; a flood of rubbish must not crowd out the webhooks.
const MAX_IN_FLIGHT: usize = 64;
/// A refusal waits this long for its entry to be stored, and no longer.
const WITHIN: Duration = Duration::from_secs(1);
/// A stranger's body is cut off here.
const STRANGERS_BYTES: usize = 16 * 1024;

#[derive(Clone)]
pub struct Quarantine {
    broker: Broker,
    secrets: watch::Receiver<Arc<Secrets>>,
    permits: Arc<Semaphore>,
}

/// A refused request, as far as it was read.
pub struct Refused<'r> {
    pub refusal: Refusal,
    pub source: &'r Source,
    /// The key of the source in the URL, which may be nobody's: as it may be shown.
    pub key: &'r str,
    pub stranger: bool,
    pub proof: &'r Proof,
    pub body: Bytes,
    pub trace: &'r TraceContext,
}

impl Quarantine {
    pub fn new(broker: Broker, secrets: watch::Receiver<Arc<Secrets>>) -> Self {
        Self { broker, secrets, permits: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) }
    }

    /// Keeps what can never be accepted as it is. What was only not stored is not refused.
    pub async fn keep(&self, refused: Refused<'_>) {
        if refused.refusal.status().is_server_error() {
            return;
        }
        let kept = match timeout(WITHIN, self.store(&refused)).await {
            Ok(Ok(())) => "stored",
            Ok(Err(why)) => why,
            Err(_) => "broker_slow",
        };
        counter!("ingest_quarantined_total", "outcome" => kept).increment(1);
        if kept != "stored" {
            let reason = refused.refusal.reason();
            let text = "a refused webhook is not in the quarantine";
            // A flood has a number in the metrics, and not a line for each of it.
            if kept.starts_with("too_many") {
                debug!(reason, outcome = kept, "{text}: {kept}");
            } else {
                warn!(reason, outcome = kept, "{text}: {kept}");
            }
        }
    }

    async fn store(&self, refused: &Refused<'_>) -> Result<(), &'static str> {
        let limit = if refused.stranger { STRANGERS_BYTES } else { usize::MAX };
        refused.source.quarantines(refused.refusal, Entry::size(refused, limit))?;
        let _permit = self.permits.try_acquire().map_err(|_| "too_many")?;
        if !self.broker.takes_events() {
            return Err("broker_away");
        }
        let secrets = Arc::clone(&self.secrets.borrow());
        let entry = Entry::of(refused, secrets.quarantine_key.as_ref(), limit);
        let payload = serde_json::to_vec(&entry).map_err(|_| "unwritable")?;
        let subject =
            format!("leadpulse.quarantine.{}.{}", refused.source.key, refused.refusal.reason());
        let published = self.broker.jetstream().publish(subject, payload.into()).await;
        let acknowledged = published.map_err(|_| "not_sent")?.await;
        acknowledged.map(|_| ()).map_err(|_| "not_acknowledged")
    }
}
