//! `GET /v1/stream`: server-sent hints. A hint says which topics of an org's read models changed and up to
//! which sequence; what changed in them, the client reads. A change of leads is one of metrics as well.

mod hub;

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    http::{HeaderValue, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use projector::version::Topic;
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
/// Between two looks whether the key is still good, as far as it is known (`auth/known.rs`).
const LOOK: Duration = Duration::from_millis(500);
/// What a client may want to hear about.
const TOPICS: [(&str, Topic); 2] = [("leads", Topic::Leads), ("metrics", Topic::Metrics)];

fn scope(topic: Topic) -> Scope {
    match topic {
        Topic::Leads => Scope::Leads,
        Topic::Metrics => Scope::Metrics,
    }
}

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
fn topics(caller: &Caller, mut params: Params) -> Result<Vec<(&'static str, Topic)>, Problem> {
    let asked: Vec<Vec<Topic>> = params.many("topics", |list| {
        let known = |word: &str| TOPICS.iter().find(|topic| topic.0 == word).map(|topic| topic.1);
        let unknown = || "must be of: leads, metrics".to_owned();
        list.split(',').map(|word| known(word).ok_or_else(unknown)).collect()
    });
    params.finish()?;
    let asked = asked.concat();
    for topic in &asked {
        caller.needs(scope(*topic))?;
    }
    let is_meant = |topic: Topic| match asked.is_empty() {
        true => caller.may(scope(topic)),
        false => asked.contains(&topic),
    };
    let meant: Vec<_> = TOPICS.into_iter().filter(|(_, topic)| is_meant(*topic)).collect();
    if meant.is_empty() { Err(Problem::Forbidden(Scope::Leads)) } else { Ok(meant) }
}

struct Hints {
    subscription: Subscription,
    topics: Vec<(&'static str, Topic)>,
    look: Interval,
    caller: Caller,
    app: Arc<App>,
    #[expect(dead_code, reason = "counts the stream while it is open")]
    place: Place,
}

impl Hints {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        let mut event = match self.subscription.backlog.take() {
            Some(Some(missed)) => self.hint(missed),
            Some(None) => Some(resync()),
            None => None,
        };
        while event.is_none() {
            let stop = self.app.stop.clone();
            tokio::select! {
                () = stop.cancelled() => return None,
                _ = self.look.tick() => if self.is_over().await { return None },
                hint = self.subscription.hints.recv() => match hint {
                    Ok(_) if self.is_over().await => return None,
                    Ok(hint) => event = self.hint(hint),
                    Err(RecvError::Lagged(_)) => event = Some(resync()),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
        Some((Ok(event?), self))
    }

    /// Whose key was revoked or has expired meanwhile hears nothing more. Not known in time is no.
    async fn is_over(&self) -> bool {
        timeout(LOOK, self.app.keys.is_gone(&self.caller)).await.unwrap_or(false)
    }

    /// None if it is about none of the topics.
    fn hint(&self, hint: Hint) -> Option<Event> {
        let topics = self.topics.iter().filter(|(_, topic)| *topic <= hint.topic);
        let topics: Vec<&str> = topics.map(|(name, _)| *name).collect();
        let data = json!({ "topics": topics, "seq": hint.seq, "version": hint.version });
        let event = Event::default().event("changed").id(hint.seq.to_string());
        (!topics.is_empty()).then(|| event.data(data.to_string()))
    }
}

/// The client missed hints that are gone: it reads everything anew.
fn resync() -> Event {
    Event::default().event("resync").data("{}")
}
