//! What a service says of itself. The endpoints only read what the service's own tasks last saw, so
//! they answer at once, whatever hangs behind.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::{Value, json};

/// Does the service do its job without this dependency?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Required,
    /// Without it the service is `degraded`: slower, never wrong.
    Optional,
}

#[derive(Debug, Clone)]
enum Status {
    Up { latency: Option<Duration>, detail: String },
    Down { reason: String },
}

#[derive(Debug)]
struct Seen {
    need: Need,
    status: Status,
    /// As the dependency itself last told it.
    version: Option<String>,
}

#[derive(Debug)]
struct Inner {
    service: &'static str,
    draining: bool,
    dependencies: BTreeMap<&'static str, Seen>,
    facts: BTreeMap<&'static str, Value>,
}

/// The health of one service, shared by its tasks and its endpoints.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
    metrics: PrometheusHandle,
}

/// One dependency of the service. It is down until somebody has seen it up.
#[derive(Debug, Clone)]
pub struct Dependency {
    name: &'static str,
    health: Health,
}

impl Health {
    pub fn new(service: &'static str, metrics: PrometheusHandle) -> Self {
        let inner = Inner {
            service,
            draining: false,
            dependencies: BTreeMap::new(),
            facts: BTreeMap::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), metrics }
    }

    pub fn dependency(&self, name: &'static str, need: Need) -> Dependency {
        let status = Status::Down { reason: "not reached yet".into() };
        self.lock().dependencies.insert(name, Seen { need, status, version: None });
        Dependency { name, health: self.clone() }
    }

    /// A fact for `/health/detailed`, such as the durability of the stream.
    pub fn fact(&self, name: &'static str, value: impl Into<Value>) {
        self.lock().facts.insert(name, value.into());
    }

    /// From now on the service is not ready: it finishes what it has.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    /// Why the service can't do its job now; empty if it can.
    pub fn obstacles(&self) -> Vec<String> {
        let inner = self.lock();
        let mut obstacles = Vec::new();
        if inner.draining {
            obstacles.push("draining".to_owned());
        }
        for (name, Seen { need, status, .. }) in &inner.dependencies {
            if let (Need::Required, Status::Down { reason }) = (need, status) {
                obstacles.push(format!("{name}: {reason}"));
            }
        }
        obstacles
    }

    /// The four health endpoints and `/metrics`, the same on every service.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        self.probes().merge(self.details())
    }

    /// What anybody may know: whether the service lives, and whether it can do its job.
    pub fn probes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        Router::new()
            .route("/health", get(up))
            .route("/health/liveness", get(up))
            .route("/health/readiness", get(readiness))
            .with_state(self.clone())
    }

    /// What operators want to know.
    fn details<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        Router::new()
            .route("/health/detailed", get(detailed))
            .route("/metrics", get(metrics))
            .with_state(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A poisoned lock only says that another task panicked; the map itself is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Dependency {
    pub fn up(&self, latency: Option<Duration>, detail: impl Into<String>) {
        self.set(Status::Up { latency, detail: detail.into() });
    }

    pub fn down(&self, reason: impl Into<String>) {
        self.set(Status::Down { reason: reason.into() });
    }

    pub fn is_up(&self) -> bool {
        let inner = self.health.lock();
        matches!(inner.dependencies.get(self.name), Some(Seen { status: Status::Up { .. }, .. }))
    }

    /// The version that it says it has.
    pub fn is_of_version(&self, version: &str) {
        self.change(|seen| {
            if seen.version.as_deref() != Some(version) {
                seen.version = Some(version.to_owned());
            }
        });
    }

    fn set(&self, status: Status) {
        self.change(|seen| seen.status = status);
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.health.lock().dependencies.get_mut(self.name) {
            change(seen);
        }
    }
}

async fn up(State(health): State<Health>) -> Json<Value> {
    let service = health.lock().service;
    Json(json!({ "status": "up", "service": service, "version": env!("CARGO_PKG_VERSION") }))
}

async fn readiness(State(health): State<Health>) -> impl IntoResponse {
    match health.obstacles() {
        obstacles if obstacles.is_empty() => (StatusCode::OK, Json(json!({ "status": "ready" }))),
        obstacles => {
            let body = json!({ "status": "not_ready", "reasons": obstacles });
            (StatusCode::SERVICE_UNAVAILABLE, Json(body))
        }
    }
}

async fn detailed(State(health): State<Health>) -> impl IntoResponse {
    let ready = health.obstacles().is_empty();
    let inner = health.lock();
    let mut degraded = false;
    let mut dependencies = serde_json::Map::new();
    for (name, Seen { need, status, version }) in &inner.dependencies {
        let view = match status {
            Status::Up { latency, detail } => json!({
                "status": "up",
                "latency_ms": latency.map(|latency| latency.as_secs_f64() * 1e3),
                "version": version,
                "detail": detail,
            }),
            Status::Down { reason } => {
                degraded |= *need == Need::Optional;
                json!({ "status": "down", "reason": reason })
            }
        };
        dependencies.insert((*name).to_owned(), view);
    }
    let (code, status) = match (ready, degraded) {
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
        (true, true) => (StatusCode::OK, "degraded"),
        (true, false) => (StatusCode::OK, "up"),
    };
    let body = json!({
        "status": status,
        "service": inner.service,
        "version": env!("CARGO_PKG_VERSION"),
        "draining": inner.draining,
        "dependencies": dependencies,
        "facts": inner.facts,
    });
    (code, Json(body))
}

async fn metrics(State(health): State<Health>) -> String {
    health.metrics.render()
}
