//! How the projection is, asked of the stream and of Postgres and not of the projector: it is right also
//! when the projector is dead. What can't be asked is unknown, and said.

mod findings;
mod look;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use tokio::time::sleep;

use super::{Tools, checkpoint::LanePosition, pause::Pause};
use crate::store::Fault;
pub use findings::Finding;
use look::Look;

/// Rates are measured over this time.
const SAMPLE: Duration = Duration::from_millis(400);

#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub at: DateTime<Utc>,
    pub stream: Option<StreamStatus>,
    pub projection: Option<ProjectionStatus>,
    pub lag: Option<Lag>,
    pub rates: Option<Rates>,
    /// What nats-server's monitoring page says; none if `nats.monitor` names none, and for a single org.
    pub monitor: Option<Monitor>,
    /// What is wrong, worst first; empty if nothing is.
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, Serialize)]
pub struct StreamStatus {
    pub name: String,
    pub created_at: DateTime<Utc>,
    pub first_seq: u64,
    pub last_seq: u64,
    pub messages: u64,
    pub bytes: u64,
    /// What bounds the stream by its settings. How much room its disk has, it does not know.
    pub limits: Vec<Limit>,
    pub consumers: Vec<Consumer>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Limit {
    /// Such as `bytes of the stream`.
    pub what: &'static str,
    pub used: u64,
    pub most: u64,
}

#[derive(Debug, Clone, Serialize)]
pub struct Monitor {
    /// Unknown if it can't be asked.
    pub well: Option<bool>,
    /// What is wrong, or why it can't be asked.
    pub said: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct Consumer {
    pub name: String,
    pub description: Option<String>,
    pub delivered_seq: u64,
    pub pending: u64,
    /// Nobody asks it for messages any more. NATS removes it by itself.
    pub abandoned: bool,
}

#[derive(Debug, Clone, Serialize)]
pub struct ProjectionStatus {
    pub applied_seq: i64,
    pub lanes: Vec<LanePosition>,
    pub owner: Option<Owner>,
    pub paused: Option<Pause>,
    /// Why a projector that runs stands still.
    pub fault: Option<Fault>,
    pub parked_leads: i64,
    pub parked_letters: i64,
    pub unreadable_letters: i64,
    pub dirty_agents: i64,
    pub oldest_mark_seconds: Option<f64>,
    /// Rows of AgentMetrics that the clock has overtaken.
    pub stale_rows: i64,
    pub mapping_of_tables: Option<String>,
    pub mapping_of_configuration: String,
    /// The phase of a rebuild that is going on.
    pub rebuild: Option<String>,
    /// The database's locale tells letters beyond ASCII: names are found by parts, and in any case.
    #[serde(skip)]
    pub knows_letters: bool,
}

/// Who may write.
#[derive(Debug, Clone, Serialize)]
pub struct Owner {
    pub owner: String,
    pub fence: i64,
    pub expires_at: DateTime<Utc>,
    pub alive: bool,
    /// Since when it is not, by the clock of Postgres. Between two attempts nobody holds the lease.
    #[serde(skip)]
    pub silent_seconds: f64,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Lag {
    pub events: u64,
    /// How long the first event that is not applied has been waiting; unknown if the stream has lost it.
    pub seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rates {
    pub arriving_per_second: f64,
    pub applied_per_second: f64,
}

/// Two looks with a pause between them. Of one org, counts are of that org alone.
pub async fn status(tools: &Tools, org_id: Option<&str>) -> Status {
    let first = Look::take(tools, org_id).await;
    if first.stream.is_err() || first.tables.is_err() {
        return first.status(tools, None);
    }
    sleep(SAMPLE).await;
    let second = Look::take(tools, org_id).await;
    second.status(tools, Some(&first))
}
