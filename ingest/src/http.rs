//! All routes of `ingest`, and what bounds a request before anybody looks into it.

pub mod body;

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{Router, http::Request, response::Response};
use futures_util::{FutureExt, future::Either};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use metrics::Gauge;
use percent_encoding::percent_decode_str;
use tokio::sync::watch;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    publish::Publisher,
    quarantine::Quarantine,
    source::Secrets,
    webhook::{self, Meters, aside},
};
use body::Room;

/// What a request needs: who may send, and where it goes.
pub struct Door {
    /// They change when the configuration is read again.
    pub secrets: watch::Receiver<Arc<Secrets>>,
    pub publisher: Publisher,
    pub quarantine: Quarantine,
    pub(crate) meters: Meters,
    /// Within this time a body must be there.
    pub read_within: Duration,
    /// The memory that there is for bodies.
    pub room: Room,
}

/// What every webhook's address begins with: `/webhooks/monday/{source}`, or `…/{source}/{token}`.
const WEBHOOKS: &str = "/webhooks/monday/";

/// What answers connections: the door for webhooks, with the pages of `health` that belong beside it. A
/// webhook does not go through a router: it has one address and one method.
pub fn service(
    door: Arc<Door>,
    health: Router,
) -> impl Service<Request<Incoming>, Response = Response, Error = Infallible, Future: Send> + Clone + Send
{
    let [no_route, wrong_method] = [Arc::clone(&door), Arc::clone(&door)];
    let rest = health
        .method_not_allowed_fallback(move |request| aside::wrong_method(wrong_method, request))
        .fallback(move |request| aside::no_route(no_route, request))
        .layer(CatchPanicLayer::custom(webhook::panicked));
    service_fn(move |request: Request<Incoming>| match Address::of(request.uri().path()) {
        Some(address) => Either::Left(take_in(Arc::clone(&door), address, request)),
        None => Either::Right(tower::Service::call(&mut rest.clone(), request)),
    })
}

async fn take_in(
    door: Arc<Door>,
    address: Address,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let received = AssertUnwindSafe(webhook::receive(&door, address, request)).catch_unwind();
    Ok(received.await.unwrap_or_else(webhook::panicked))
}

/// Where a webhook was sent to.
pub(crate) struct Address {
    /// The source's key; empty if it is no text, which is nobody's.
    pub source: String,
    pub token: Option<String>,
}

impl Address {
    fn of(path: &str) -> Option<Self> {
        let rest = path.strip_prefix(WEBHOOKS)?;
        let (source, token) = match rest.split_once('/') {
            None => (rest, None),
            Some((source, token)) => (source, Some(token)),
        };
        let is_part = |part: &str| !part.is_empty() && !part.contains('/');
        let text = |part| percent_decode_str(part).decode_utf8().unwrap_or_default().into_owned();
        (is_part(source) && token.is_none_or(is_part))
            .then(|| Self { source: text(source), token: token.map(text) })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_source_and_may_have_a_token() {
        let of = |path| Address::of(path).map(|address| (address.source, address.token));
        let source = |source: &str| Some((source.to_owned(), None));
        assert_eq!(of("/webhooks/monday/demo-crm"), source("demo-crm"));
        assert_eq!(of("/webhooks/monday/demo%2Dcrm"), source("demo-crm"));
        assert_eq!(of("/webhooks/monday/%ff"), source(""), "no text is nobody's key");
        assert_eq!(of("/webhooks/monday/a/t%2B="), Some(("a".into(), Some("t+=".into()))));
        for other in ["/", "/webhooks/monday", "/webhooks/monday/", "/webhooks/monday//t"] {
            assert_eq!(of(other), None, "{other}");
        }
        for other in ["/webhooks/monday/a/", "/webhooks/monday/a/t/", "/webhooks/monday/a/t/u"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
