//! A stream that is followed from look to look: made where there is none yet, and made again where it is
//! gone. That it is gone is a loss, and is said as one.

use std::time::Duration;

use async_nats::{
    datetime::DateTime,
    jetstream::{
        self,
        context::GetStreamErrorKind,
        stream::{Config, Info},
    },
};
use chrono::Utc;
use futures_util::{StreamExt, stream::FuturesUnordered};
use leadpulse_service::health::Health;
use metrics::{Counter, counter};
use serde_json::json;
use tokio::time::sleep;
use tracing::{error, info};

/// A question that was put to a leader that died has no answer. It is put again after this time, so that
/// the next leader hears it as soon as there is one.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(400);

pub(super) struct Followed<'b> {
    jetstream: &'b jetstream::Context,
    pub(super) definition: &'b Config,
    health: &'b Health,
    /// The fact of `/health/detailed` that tells of a loss.
    fact: &'static str,
    /// What a loss means, and what to do.
    advice: &'static str,
    /// When the stream was made that was seen last: one that was made at another time is another one.
    made_at: Option<DateTime>,
    lost: Counter,
}

impl<'b> Followed<'b> {
    pub(super) fn new(
        jetstream: &'b jetstream::Context,
        definition: &'b Config,
        health: &'b Health,
        (fact, advice): (&'static str, &'static str),
    ) -> Self {
        let lost = counter!("ingest_streams_lost_total", "stream" => definition.name.clone());
        Self { jetstream, definition, health, fact, advice, made_at: None, lost }
    }

    /// The stream as it is on the server; a missing one is made.
    pub(super) async fn find_or_create(&mut self) -> Result<Config, String> {
        let name = &self.definition.name;
        let stream = match self.find().await? {
            Some(found) => found,
            None => {
                let created = self.jetstream.create_stream(self.definition).await;
                let stream = created
                    .map_err(|error| format!("the stream {name} can't be created: {error}"))?;
                if self.made_at.is_none() {
                    info!(stream = %name, replicas = self.definition.num_replicas, "stream created");
                }
                stream.cached_info().clone()
            }
        };
        if let Some(before) = self.made_at.replace(stream.created)
            && before != stream.created
        {
            self.tell_loss();
        }
        Ok(stream.config)
    }

    async fn find(&self) -> Result<Option<Info>, String> {
        let name = &self.definition.name;
        let asked = answered(async || self.jetstream.get_stream(name).await).await;
        match asked.map_err(|error| error.kind()) {
            Ok(stream) => Ok(Some(stream.cached_info().clone())),
            Err(GetStreamErrorKind::JetStream(error))
                if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            Err(_) => Err(format!("the stream {name} does not answer")),
        }
    }

    /// Service goes on with the new stream, but what the old one held is not in it.
    fn tell_loss(&self) {
        let Self { definition: Config { name, .. }, advice, .. } = self;
        error!(stream = %name, "the stream {name} is gone and another has its name: {advice}");
        let noticed_at = Utc::now().to_rfc3339();
        self.health.fact(
            self.fact,
            json!({ "stream": name, "noticed_at": noticed_at, "what_to_do": advice }),
        );
        self.lost.increment(1);
    }
}

/// The first answer to a question that is put again while there is none.
async fn answered<T>(question: impl AsyncFn() -> T) -> T {
    let mut asked = FuturesUnordered::new();
    asked.push(question());
    loop {
        tokio::select! {
            Some(answer) = asked.next() => return answer,
            () = sleep(ASK_AGAIN_AFTER) => asked.push(question()),
        }
    }
}
