//! `GET /v1/stream`: server-sent hints. A hint says that an org's read models changed and up to which
//! sequence; what changed, the client reads. A version does not tell leads and figures apart (a lead's change
//! is nearly always one of figures), so `topics` say what the client reads, and each hint is about all of them.

mod hub;

use std::{collections::HashSet, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde_json::json;
use tokio::{
    sync::broadcast::error::RecvError,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

pub(crate) use hub::Hub;

use crate::{
    asked::Asked,
    auth::{Caller, Scope},
    params::Params,
    problem::Problem,
    state::App,
};
use hub::{Hint, Place, Subscription};

/// A comment keeps proxies from closing a silent stream.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two looks whether the key is still good; the streams of one key share what is found for a second.
const LOOK: Duration = Duration::from_millis(500);
const TOPICS: [(&str, &str); 2] = [("leads", "leads"), ("metrics", "metrics")];

pub(crate) async fn stream(asked: Asked) -> Result<Response, Problem> {
    let caller = asked.caller([]).await?;
    let topics = topics(&caller, asked.params())?;
    let Asked { app, headers, .. } = asked;
    let left = app.limits.admit(&caller, 1)?;
    let place = app.hub.enter(caller.key_id, &left)?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let subscription = app.hub.subscribe(&caller.org.id, seen.map(|id| id.parse().unwrap_or(-1)));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let hints = Hints { subscription, topics, look, place, caller, app };
    let events = stream::unfold(hints, Hints::next);
    let keep_alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    // Proxies of the nginx kind collect an answer before they pass it on, unless told not to.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    left.tell(headers);
    Ok(response)
}

/// The topics that are asked for, or all that the key may read.
fn topics(caller: &Caller, mut params: Params) -> Result<Vec<&'static str>, Problem> {
    let asked: Vec<Vec<&'static str>> = params.many("topics", |list| {
        let known = |word: &str| TOPICS.iter().find(|topic| topic.0 == word).map(|topic| topic.1);
        let unknown = || "must be of: leads, metrics".to_owned();
        list.split(',').map(|word| known(word).ok_or_else(unknown)).collect()
    });
    params.finish()?;
    let scope = |topic: &str| if topic == "leads" { Scope::Leads } else { Scope::Metrics };
    let asked: HashSet<&'static str> = asked.into_iter().flatten().collect();
    if asked.is_empty() {
        let may: Vec<_> =
            TOPICS.map(|topic| topic.0).into_iter().filter(|t| caller.may(scope(t))).collect();
        return if may.is_empty() { Err(Problem::Forbidden(Scope::Leads)) } else { Ok(may) };
    }
    for topic in &asked {
        caller.needs(scope(topic))?;
    }
    Ok(TOPICS.map(|topic| topic.0).into_iter().filter(|topic| asked.contains(topic)).collect())
}

struct Hints {
    subscription: Subscription,
    topics: Vec<&'static str>,
    look: Interval,
    caller: Caller,
    app: Arc<App>,
    #[expect(dead_code, reason = "counts the stream while it is open")]
    place: Place,
}

impl Hints {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let event = match self.subscription.backlog.take() {
            Some(Some(hint)) => self.hint(hint),
            Some(None) => resync(),
            None => loop {
                let stop = self.app.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => return None,
                    _ = self.look.tick() => if self.is_over().await { return None },
                    hint = self.subscription.hints.recv() => match hint {
                        Ok(_) if self.is_over().await => return None,
                        Ok(hint) => break self.hint(hint),
                        Err(RecvError::Lagged(_)) => break resync(),
                        Err(RecvError::Closed) => return None,
                    },
                }
            },
        };
        Some((Ok(event), self))
    }

    /// Whose key was revoked or has expired meanwhile hears nothing more. Not known in time is no.
    async fn is_over(&self) -> bool {
        timeout(LOOK, self.app.keys.is_gone(&self.caller)).await.unwrap_or(false)
    }

    fn hint(&self, hint: Hint) -> Event {
        let data = json!({ "topics": self.topics, "seq": hint.seq, "version": hint.version });
        Event::default().event("changed").id(hint.seq.to_string()).data(data.to_string())
    }
}

/// The client missed hints that are gone: it reads everything anew.
fn resync() -> Event {
    Event::default().event("resync").data("{}")
}
