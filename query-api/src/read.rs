//! The way of every read: credential → parameters → memory → Redis → one snapshot of Postgres.

use std::{
    future::Future,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use axum::{
    extract::MatchedPath,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use leadpulse_service::config::Org;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use crate::{
    asked::Asked,
    auth::{Caller, Scope},
    cache::{self, Entry, Lease, Lives, Origin},
    db::{self, Snapshot},
    front::{Meaning, Words},
    header::{AS_OF, CACHE_STATUS, SEQ, SERVER_TIMING, header_value},
    http::observe::Meter,
    params::Params,
    problem::Problem,
    state::App,
    value::Milliseconds,
};

/// A read waits this long for what it asked for by `min_seq`.
pub(crate) const BEHIND: Duration = Duration::from_secs(2);
/// And this long for figures that the clock has just overtaken: the projector is computing them.
const OVERTAKEN: Duration = Duration::from_secs(1);
/// And this long for its turn to ask Postgres: what waits longer is refused, so that the rest is quick.
const QUEUE: Duration = Duration::from_secs(1);
/// And this long for an answer that another process is making.
const ELSEWHERE: Duration = Duration::from_millis(400);

/// A resource: what it takes, and how it is made.
pub(crate) trait Read: Sized + Send + Sync + 'static {
    /// The name in metrics, logs and cache keys.
    const FAMILY: &'static str;
    const SCOPE: Scope;
    /// A second scope that is needed as well.
    const ALSO: Option<Scope> = None;
    /// With the scope `pii:read` the answer is another one.
    const SHOWS_PII: bool = false;
    const CONTENT_TYPE: &'static str = "application/json";
    /// Points of the rate limit: about the rows behind an answer.
    const COST: u32 = 1;

    /// Of this question, where it depends on what is asked.
    fn cost(&self) -> u32 {
        Self::COST
    }

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
    /// The question without `cursor`, `limit` and `count`: what a cursor is bound to.
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
pub(crate) struct Question<R> {
    read: R,
    caller: Caller,
    min_seq: i64,
    filters: String,
    spelling: String,
    /// Its words and its route, if somebody has asked it with the credential that stands in the words: an answer
    /// to another header's key is never given out by them.
    words: Option<(Words, MatchedPath)>,
}

impl<R: Read> Question<R> {
    async fn of(asked: &Asked) -> Result<Self, Problem> {
        let scopes = [Some(R::SCOPE), R::ALSO];
        let caller = asked.caller(scopes.into_iter().flatten()).await?;
        Ok(Self { words: asked.words.clone(), ..Self::new(caller, asked.params())? })
    }

    pub(crate) fn new(caller: Caller, mut params: Params) -> Result<Self, Problem> {
        let filters = params.canonical(&["min_seq", "cursor", "limit", "count"]);
        let spelling = params.canonical(&["min_seq"]);
        let min_seq = params.number("min_seq", 0, i64::MAX).unwrap_or(0);
        let read = R::parse(&mut params, &caller);
        params.finish()?;
        Ok(Self { read, caller, min_seq, filters, spelling, words: None })
    }

    /// The answer's name in the caches.
    fn key(&self, version: i64) -> String {
        let pii = R::SHOWS_PII && self.caller.may(Scope::Pii);
        cache::key(R::FAMILY, &self.caller.org.id, version, pii, &self.spelling)
    }

    /// It was answered from memory: asked again in the same words it need not be understood again.
    fn may_come_again(&self, app: &App, version: i64, entry: &Arc<Entry>) {
        let Some((words, route)) = &self.words else { return };
        let meaning = Meaning {
            caller: self.caller.clone(),
            family: R::FAMILY,
            content_type: R::CONTENT_TYPE,
            min_seq: self.min_seq,
            version,
            entry: Arc::downgrade(entry),
            meter: Meter::of(route.as_str().to_owned()),
            used: AtomicBool::new(true),
        };
        app.meanings.learn(*words, meaning);
    }
}

/// Answers a read of a resource.
pub(crate) async fn read<R: Read>(asked: Asked) -> Result<Response, Problem> {
    let question = Question::<R>::of(&asked).await?;
    answer(&asked, question).await
}

pub(crate) async fn answer<R: Read>(
    asked: &Asked,
    question: Question<R>,
) -> Result<Response, Problem> {
    let (app, question) = (&asked.app, Arc::new(question));
    let started = Instant::now();
    let (entry, origin) = find(app, &question).await?;
    app.cache.count(R::FAMILY, origin);
    let mut response = respond(R::CONTENT_TYPE, &entry, origin, &asked.headers, started.elapsed());
    app.limits.left(&question.caller, started.into_std()).tell(response.headers_mut());
    Ok(response)
}

pub(crate) async fn find<R: Read>(
    app: &Arc<App>,
    question: &Arc<Question<R>>,
) -> Result<(Arc<Entry>, Origin), Problem> {
    let Some(version) = app.versions.of(&question.caller.org.id, Instant::now().into_std()) else {
        app.limits.admit(&question.caller, question.read.cost())?;
        return Ok((make(app, question).await?, Origin::Uncached));
    };
    let (key, asked) = (question.key(version), db::now());
    match app.cache.near(&key, question.min_seq) {
        Some((entry, true)) => {
            question.may_come_again(app, version, &entry);
            return Ok((entry, Origin::Near));
        }
        Some((entry, false)) => {
            renew(app, question, key, asked);
            return Ok((entry, Origin::Stale));
        }
        None => {}
    }
    app.limits.admit(&question.caller, question.read.cost())?;
    // Before the turn: who asks for the future must not keep those waiting who do not.
    app.applied.wait(&app.pool, question.min_seq, Instant::now() + BEHIND).await?;
    let turn = app.cache.flight(&key).turn().await?;
    if let Some(entry) = app.cache.made_since(&key, question.min_seq, asked) {
        return Ok((entry, Origin::Collapsed));
    }
    let fetched = fetch(app, question, &key).await;
    turn.end(&fetched);
    fetched
}

/// From Redis or Postgres, by whoever has the turn.
async fn fetch<R: Read>(
    app: &App,
    question: &Question<R>,
    key: &str,
) -> Result<(Arc<Entry>, Origin), Problem> {
    let started = Instant::now();
    let _lease = loop {
        if let Some(entry) = app.cache.far(key, question.min_seq).await {
            return Ok((entry, Origin::Far));
        }
        match app.cache.lease(key).await {
            // It may be slow, or dead: then this process makes the answer, too.
            Lease::Elsewhere if started.elapsed() < ELSEWHERE => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            lease => break lease,
        }
    };
    let entry = make(app, question).await?;
    app.cache.store(key, &entry);
    Ok((entry, Origin::Database))
}

/// Makes an answer anew that has just got old, once, while it is still served. Where many are being made anew it
/// is left to who asks next: in a queue it would hold the turn for which somebody may come to wait.
fn renew<R: Read>(app: &Arc<App>, question: &Arc<Question<R>>, key: String, asked: DateTime<Utc>) {
    let Ok(permit) = Arc::clone(&app.renewals).try_acquire_owned() else { return };
    let Some(turn) = app.cache.flight(&key).turn_now() else { return };
    // Somebody's turn may have ended just now, after this one had looked.
    if app.cache.made_since(&key, question.min_seq, asked).is_some() {
        return;
    }
    let (app, question) = (Arc::clone(app), Arc::clone(question));
    tokio::spawn(async move {
        let fetched = fetch(&app, &question, &key).await;
        if let Err(problem) = &fetched {
            tracing::debug!(%problem, "an answer was not renewed");
        }
        turn.end(&fetched);
        drop(permit);
    });
}

/// The answer from Postgres, no older than asked for.
async fn make<R: Read>(app: &App, question: &Question<R>) -> Result<Arc<Entry>, Problem> {
    let started = Instant::now();
    loop {
        let deadline = started + BEHIND;
        app.applied.wait(&app.pool, question.min_seq, deadline).await?;
        // Each time anew: who waits keeps nobody else from a turn.
        let Ok(Ok(permit)) = timeout(QUEUE, app.loads.acquire()).await else {
            metrics::counter!("query_api_shed_total").increment(1);
            return Err(Problem::Unavailable);
        };
        let mut snapshot = Snapshot::open(&app.pool).await?;
        app.applied.note(snapshot.seq);
        if snapshot.seq < question.min_seq {
            // The position went back, or another look was ahead of this snapshot.
            if Instant::now() >= deadline {
                return Err(Problem::Behind { asked: question.min_seq, applied: snapshot.seq });
            }
            continue;
        }
        let context = Context {
            app,
            caller: &question.caller,
            filters: &question.filters,
            patient: started.elapsed() < OVERTAKEN,
        };
        let (body, lives) = match question.read.load(&context, &mut snapshot).await {
            Ok(loaded) => (Some(loaded.body), loaded.lives),
            // That there is no such thing is true until the data change.
            Err(NotLoaded::Problem(Problem::NotFound)) => (None, Lives::Short),
            Err(NotLoaded::Problem(problem)) => return Err(problem),
            Err(NotLoaded::Overtaken) => {
                snapshot.close().await?;
                drop(permit);
                tokio::time::sleep(Duration::from_millis(25)).await;
                continue;
            }
        };
        let (seq, at) = (snapshot.seq, snapshot.at);
        snapshot.close().await?;
        let ttl = TimeDelta::from_std(app.cache.ttl(lives)).unwrap_or_default();
        let org = &question.caller.org.id;
        return Ok(Arc::new(Entry::new(org, body, seq, at, db::now() + ttl)));
    }
}

/// An answer has so many headers with those that come later: they are made room for once.
const HEADERS: usize = 16;

pub(crate) fn respond(
    content_type: &'static str,
    entry: &Entry,
    origin: Origin,
    asked: &HeaderMap,
    took: Duration,
) -> Response {
    let gzip = entry.compressible() && takes_gzip(asked);
    let etag = if gzip { &entry.gzip_etag } else { &entry.etag };
    let mut response = if entry.missing {
        Problem::NotFound.into_response()
    } else if knows(asked, entry) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static(content_type))];
        let body = if gzip { entry.gzip() } else { entry.body.clone() };
        let mut response = (content_type, body).into_response();
        if gzip {
            let gzip = HeaderValue::from_static("gzip");
            response.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        }
        response
    };
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    if !entry.missing {
        headers.insert(header::ETAG, etag.clone());
    }
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(CACHE_STATUS, origin.status());
    headers.insert(SEQ, HeaderValue::from(entry.seq));
    headers.insert(AS_OF, entry.as_of.clone());
    let timing = header_value(format_args!("{};dur={}", origin.as_str(), Milliseconds(took)));
    if let Some(timing) = timing {
        headers.insert(SERVER_TIMING, timing);
    }
    response
}

/// Has the client this body, in whichever form?
fn knows(asked: &HeaderMap, entry: &Entry) -> bool {
    asked.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
        tags.as_bytes().split(|byte| *byte == b',').any(|tag| {
            let tag = tag.trim_ascii();
            let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
            tag == b"*" || tag == entry.etag.as_bytes() || tag == entry.gzip_etag.as_bytes()
        })
    })
}

/// Does the client take gzip? (RFC 9110: a coding with `q=0` is refused.)
fn takes_gzip(asked: &HeaderMap) -> bool {
    let listed = asked.get_all(header::ACCEPT_ENCODING);
    listed.iter().filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')).any(
        |coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let weight = weight.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
            name.trim().eq_ignore_ascii_case("gzip") && weight.is_some_and(|q| q > 0.0)
        },
    )
}
