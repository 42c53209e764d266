//! The way of every read: credential → parameters → memory → Redis → one snapshot of Postgres.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    extract::{RawPathParams, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::TimeDelta;
use leadpulse_service::config::Org;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::{
    auth::{Caller, Scope},
    cache::{Entry, Origin},
    db::{self, Snapshot},
    params::Params,
    problem::Problem,
    state::App,
    value,
};

/// A read waits this long for what it asked for by `min_seq`.
pub(crate) const BEHIND: Duration = Duration::from_secs(2);
/// And this long for figures that the clock has just overtaken: the projector is computing them.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// And this long for its turn to ask Postgres: what waits longer is refused, so that the rest is quick.
const QUEUE: Duration = Duration::from_secs(1);
/// What moves with the clock is fresh for this long.
const MOMENT: Duration = Duration::from_secs(1);

/// A resource: what it takes, and how it is made.
pub(crate) trait Read: Sized + Send + Sync + 'static {
    /// The name in metrics, logs and cache keys.
    const FAMILY: &'static str;
    const SCOPE: Scope;
    /// A second scope that is needed as well.
    const ALSO: Option<Scope> = None;
    const CONTENT_TYPE: &'static str = "application/json";
    /// Points of the rate limit: about the rows behind an answer.
    const COST: u32 = 1;

    /// Problems are collected in `params`; the value counts only if there are none.
    fn parse(params: &mut Params, caller: &Caller) -> Self;

    fn load(
        &self,
        context: &Context<'_>,
        snapshot: &mut Snapshot,
    ) -> impl Future<Output = Result<Loaded, NotLoaded>> + Send;
}

pub(crate) struct Context<'a> {
    pub(crate) app: &'a App,
    pub(crate) caller: &'a Caller,
    /// The question without `cursor` and `limit`: what a cursor is bound to.
    pub(crate) filters: &'a str,
    /// It may still be answered with [`NotLoaded::Overtaken`].
    pub(crate) patient: bool,
}

impl Context<'_> {
    pub(crate) fn org(&self) -> &Org {
        &self.caller.org
    }
}

/// A finished body.
pub(crate) struct Loaded {
    body: Bytes,
    lives: Lives,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lives {
    /// Until the data change.
    WithData,
    /// For a moment: the clock alone changes it.
    WithClock,
}

pub(crate) enum NotLoaded {
    Problem(Problem),
    /// The clock has overtaken stored figures, which are about to be computed anew.
    Overtaken,
}

impl<E: Into<Problem>> From<E> for NotLoaded {
    fn from(error: E) -> Self {
        Self::Problem(error.into())
    }
}

impl Loaded {
    pub(crate) fn text(body: String, lives: Lives) -> Self {
        Self { body: body.into(), lives }
    }

    pub(crate) fn json(body: &impl Serialize, lives: Lives) -> Result<Self, Problem> {
        let body = serde_json::to_vec(body).map_err(|error| {
            tracing::error!(%error, "an answer can't be written");
            Problem::Internal
        })?;
        Ok(Self { body: body.into(), lives })
    }
}

/// One request to a resource, read and understood.
struct Question<R> {
    read: R,
    caller: Caller,
    min_seq: i64,
    filters: String,
    spelling: String,
}

impl<R: Read> Question<R> {
    async fn of(
        app: &App,
        path: &RawPathParams,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Self, Problem> {
        let caller = app.keys.bearer(headers).await?;
        for scope in [Some(R::SCOPE), R::ALSO].into_iter().flatten() {
            caller.needs(scope)?;
        }
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut params = Params::new(path, uri.query());
        let filters = params.canonical(&["min_seq", "cursor", "limit"]);
        let spelling = params.canonical(&["min_seq"]);
        let min_seq = params.number("min_seq", 0, i64::MAX).unwrap_or(0);
        let read = R::parse(&mut params, &caller);
        params.finish()?;
        Ok(Self { read, caller, min_seq, filters, spelling })
    }

    /// The answer's name in the caches: one org, one version of its read models, one question.
    fn key(&self, version: i64) -> String {
        let pii = if self.caller.may(Scope::Pii) { "pii" } else { "" };
        format!("{}|{}|{version}|{pii}|{}", R::FAMILY, self.caller.org.id, self.spelling)
    }
}

/// Answers a read of a resource.
pub(crate) async fn read<R: Read>(
    State(app): State<Arc<App>>,
    path: RawPathParams,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let question = Arc::new(Question::<R>::of(&app, &path, &uri, &headers).await?);
    let started = Instant::now();
    let (entry, origin) = find(&app, &question).await?;
    metrics::counter!("query_api_reads_total", "family" => R::FAMILY, "from" => origin.as_str())
        .increment(1);
    let mut response = respond(R::CONTENT_TYPE, &entry, origin, &headers, started.elapsed());
    app.limits.left(&question.caller)?.tell(response.headers_mut());
    Ok(response)
}

async fn find<R: Read>(
    app: &Arc<App>,
    question: &Arc<Question<R>>,
) -> Result<(Arc<Entry>, Origin), Problem> {
    let Some(version) = app.versions.of(&question.caller.org.id) else {
        app.limits.admit(&question.caller, R::COST)?;
        return Ok((make(app, question).await?, Origin::Uncached));
    };
    let key = question.key(version);
    match app.cache.near(&key, question.min_seq).await {
        Some((entry, true)) => return Ok((entry, Origin::Near)),
        Some((entry, false)) => {
            renew(app, question, key).await;
            return Ok((entry, Origin::Stale));
        }
        None => {}
    }
    app.limits.admit(&question.caller, R::COST)?;
    // Before the turn: who asks for the future must not keep those waiting who do not.
    app.applied.wait(&app.pool, question.min_seq, Instant::now() + BEHIND).await?;
    let flight = app.cache.flight(&key).await;
    let _turn = flight.lock().await;
    if let Some((entry, true)) = app.cache.near(&key, question.min_seq).await {
        return Ok((entry, Origin::Near));
    }
    fetch(app, question, &key).await
}

/// From Redis or Postgres, by whoever has the turn.
async fn fetch<R: Read>(
    app: &App,
    question: &Question<R>,
    key: &str,
) -> Result<(Arc<Entry>, Origin), Problem> {
    if let Some(entry) = app.cache.far(key, question.min_seq).await {
        return Ok((entry, Origin::Far));
    }
    let entry = make(app, question).await?;
    app.cache.store(key, &entry).await;
    Ok((entry, Origin::Database))
}

/// Makes an answer anew that has just got old, once, while it is still served.
async fn renew<R: Read>(app: &Arc<App>, question: &Arc<Question<R>>, key: String) {
    let Ok(turn) = app.cache.flight(&key).await.try_lock_owned() else { return };
    let (app, question) = (Arc::clone(app), Arc::clone(question));
    tokio::spawn(async move {
        let _turn = turn;
        if let Err(problem) = fetch(&app, &question, &key).await {
            tracing::debug!(%problem, "an answer was not renewed");
        }
    });
}

/// The answer from Postgres, no older than asked for.
async fn make<R: Read>(app: &App, question: &Question<R>) -> Result<Arc<Entry>, Problem> {
    let started = Instant::now();
    let Ok(Ok(_permit)) = timeout(QUEUE, app.loads.acquire()).await else {
        metrics::counter!("query_api_shed_total").increment(1);
        return Err(Problem::Unavailable);
    };
    loop {
        let deadline = started + BEHIND;
        app.applied.wait(&app.pool, question.min_seq, deadline).await?;
        let mut snapshot = Snapshot::open(&app.pool).await?;
        app.applied.note(snapshot.seq);
        if snapshot.seq < question.min_seq {
            // The position went back, or another look was ahead of this snapshot.
            if Instant::now() >= deadline {
                return Err(Problem::Behind { asked: question.min_seq, applied: snapshot.seq });
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        }
        let context = Context {
            app,
            caller: &question.caller,
            filters: &question.filters,
            patient: started.elapsed() < OVERTAKEN,
        };
        match question.read.load(&context, &mut snapshot).await {
            Ok(loaded) => {
                let (seq, at) = (snapshot.seq, snapshot.at);
                snapshot.close().await?;
                let lives = match loaded.lives {
                    Lives::WithData => app.cache.ttl(),
                    Lives::WithClock => MOMENT,
                };
                let fresh_until = db::now() + TimeDelta::from_std(lives).unwrap_or_default();
                let org = &question.caller.org.id;
                return Ok(Arc::new(Entry::new(org, loaded.body, seq, at, fresh_until)));
            }
            Err(NotLoaded::Problem(problem)) => return Err(problem),
            Err(NotLoaded::Overtaken) => {
                snapshot.close().await?;
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    }
}

fn respond(
    content_type: &'static str,
    entry: &Entry,
    origin: Origin,
    asked: &HeaderMap,
    took: Duration,
) -> Response {
    let known = asked.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
        tags.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == entry.etag.as_bytes()
        })
    });
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
        (content_type, entry.body.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::ETAG, entry.etag.clone());
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert("cache-status", origin.status());
    headers.insert("leadpulse-seq", HeaderValue::from(entry.seq));
    let mut text = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    text("leadpulse-as-of", value::instant(entry.at));
    text("server-timing", format!("{};dur={:.3}", origin.as_str(), took.as_secs_f64() * 1e3));
    response
}
