//! Before the router: a question that was asked a moment ago in the same words, under the same key, and
//! whose answer is in memory, is answered here. Nothing is decided anew: who asks, what they may and what
//! they mean was found out on the long way (`read.rs`), and holds as long as the key is believed and the
//! org's read models have this version. Everything else goes the long way.

use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::{
        Arc, PoisonError, RwLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{
    Router,
    http::{HeaderMap, Method, Request, Uri, header},
    response::Response,
    routing::future::RouteFuture,
};
use futures_util::future::Either;
use hyper::{body::Incoming, service::Service};
use sha2::{Digest, Sha256};

use crate::{
    auth::Caller,
    cache::{Entry, Origin},
    http::observe::{Meter, Observed},
    read::respond,
    state::App,
};

/// Questions that are known at most, some 500 bytes each.
const KNOWN: usize = 10_000;

/// The service that answers connections.
#[derive(Clone)]
pub(crate) struct Front {
    app: Arc<App>,
    router: Router,
}

/// A request's address and credential as they were sent, as a hash: no credential is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Words([u8; 32]);

/// What a question's words have turned out to mean.
pub(crate) struct Meaning {
    pub(crate) caller: Caller,
    pub(crate) family: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) min_seq: i64,
    /// Of the org's read models.
    pub(crate) version: i64,
    /// Only as long as the cache has it.
    pub(crate) entry: Weak<Entry>,
    pub(crate) meter: Meter,
    /// Since the last tidying.
    pub(crate) used: AtomicBool,
}

/// The questions of the last moment: a plain map, which is tidied once a second and so needs no cache's
/// bookkeeping.
#[derive(Default)]
pub(crate) struct Meanings {
    by_words: RwLock<HashMap<Words, Arc<Meaning>>>,
    answered: AtomicU64,
}

impl Meanings {
    pub(crate) fn learn(&self, words: Words, meaning: Meaning) {
        let mut known = self.by_words.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KNOWN || known.contains_key(&words) {
            known.insert(words, Arc::new(meaning));
        }
    }

    fn of(&self, words: &Words) -> Option<Arc<Meaning>> {
        self.by_words.read().unwrap_or_else(PoisonError::into_inner).get(words).cloned()
    }

    /// Makes room: what was of no use since the last time is forgotten. And tells the metrics how many requests
    /// needed nothing else.
    pub(crate) fn tidy(&self) {
        let mut known = self.by_words.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, meaning| meaning.used.swap(false, Ordering::Relaxed));
        let answered = self.answered.load(Ordering::Relaxed);
        metrics::counter!("query_api_answered_in_front_total").absolute(answered);
    }
}

impl Words {
    fn of(uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let (address, credential) =
            (uri.path_and_query()?.as_str(), headers.get(header::AUTHORIZATION)?);
        let mut hash = Sha256::new();
        hash.update(address.len().to_be_bytes());
        hash.update(address);
        hash.update(credential);
        Some(Self(hash.finalize().into()))
    }
}

impl Front {
    pub(crate) fn new(app: Arc<App>, router: Router) -> Self {
        Self { app, router }
    }

    /// The answer, if all that it takes is known.
    fn answer(&self, words: &Words, headers: &HeaderMap) -> Option<Response> {
        let began = Instant::now();
        let app = &self.app;
        let meaning = app.meanings.of(words)?;
        let Meaning { caller, family, content_type, min_seq, version, entry, meter, used } =
            &*meaning;
        if !caller.comes_again(began) || app.versions.of(&caller.org.id, began) != Some(*version) {
            return None;
        }
        // What has got old is made anew on the long way.
        let entry = app.cache.still(entry, *min_seq)?;
        if !used.load(Ordering::Relaxed) {
            used.store(true, Ordering::Relaxed);
        }
        app.cache.count(family, Origin::Near);
        let mut response = respond(content_type, &entry, Origin::Near, headers, began.elapsed());
        app.limits.left(caller, began).tell(response.headers_mut());
        app.meanings.answered.fetch_add(1, Ordering::Relaxed);
        Some(Observed::of(headers, began).finish(response, meter))
    }
}

impl Service<Request<Incoming>> for Front {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, RouteFuture<Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if request.method() == Method::GET
            && let Some(words) = Words::of(request.uri(), request.headers())
        {
            if let Some(response) = self.answer(&words, request.headers()) {
                return Either::Left(ready(Ok(response)));
            }
            request.extensions_mut().insert(words);
        }
        Either::Right(tower::Service::call(&mut self.router.clone(), request))
    }
}
