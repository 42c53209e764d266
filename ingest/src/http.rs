//! All routes of `ingest`, and what bounds a request before anybody looks into it.

pub mod body;

use std::{sync::Arc, time::Duration};

use axum::{Router, routing::post};
use leadpulse_service::health::Health;
use metrics::Gauge;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    publish::Publisher,
    quarantine::Quarantine,
    source::Sources,
    webhook::{self, Meters},
};

/// What a request needs: who may send, and where it goes.
pub struct Door {
    /// They change when the configuration is read again.
    pub sources: watch::Receiver<Arc<Sources>>,
    pub publisher: Publisher,
    pub quarantine: Quarantine,
    pub(crate) meters: Meters,
    /// Within this time a body must be there.
    pub read_within: Duration,
}

pub fn router(door: Door, health: &Health) -> Router {
    // Behind one pointer: the state is cloned for each request.
    Router::new()
        .route("/webhooks/monday/{source}", post(webhook::receive))
        .route("/webhooks/monday/{source}/{token}", post(webhook::receive))
        .with_state(Arc::new(door))
        .method_not_allowed_fallback(webhook::wrong_method)
        .fallback(webhook::no_route)
        .merge(health.routes())
        .layer(CatchPanicLayer::custom(webhook::panicked))
}

/// One more in flight, until it is dropped: a client that goes away takes its request with it.
pub(crate) struct InFlight(Gauge);

impl InFlight {
    pub(crate) fn count(gauge: Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
