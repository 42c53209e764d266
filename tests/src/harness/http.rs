//! Talking to the services as monday.com and as a dashboard do.

use anyhow::Result;
use futures_util::{StreamExt, stream};
use reqwest::{Client, RequestBuilder, header::HeaderMap};
use serde_json::Value;

use super::{App, Claims, PATIENCE, SECRET, SOURCE, Service, eventually, sign_jwt};

/// What a service answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("{error} in the answer {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A webhook that ingest has taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    pub seq: u64,
    pub duplicate: bool,
}

/// A connection for each request: one that a killed service has left must not fail the next test step.
pub(super) fn client() -> Result<Client> {
    Ok(Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(0).build()?)
}

async fn send(request: RequestBuilder, headers: &[(&str, &str)]) -> Result<Answer> {
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, body: response.text().await? })
}

impl Service {
    /// Reads a page of the service.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        send(self.client.get(format!("{}{path}", self.url())), headers).await
    }

    /// Reads a page that needs no credential, such as `/health`.
    pub async fn page(&self, path: &str) -> Answer {
        self.get(path, &[]).await.unwrap_or_else(|error| panic!("GET {path}: {error:#}"))
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        send(self.client.post(format!("{}{path}", self.url())).body(body.to_owned()), headers).await
    }

    /// Posts an event as monday.com would, signed.
    pub async fn post_event(&self, event: &str) -> Result<Answer> {
        let token = sign_jwt(&Claims::default(), SECRET);
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let path = format!("/webhooks/monday/{SOURCE}");
        self.post(&path, &headers, &format!("{{\"event\":{event}}}")).await
    }

    /// Delivers an event until it is taken in: monday.com tries again when it gets no 200.
    pub async fn deliver(&self, event: &str) -> Accepted {
        eventually("the webhook is taken in", PATIENCE, async || {
            let answer = self.post_event(event).await.ok()?;
            match answer.status {
                200 => Some(accepted(&answer)),
                503 => None,
                _ => panic!("a signed webhook was refused: {answer:?}\n{event}"),
            }
        })
        .await
    }

    /// Delivers all, eight at a time as monday.com would, in about this order. Gives the highest place
    /// in the stream.
    pub async fn deliver_all(&self, events: &[String]) -> u64 {
        let deliveries = stream::iter(events).map(|event| self.deliver(event)).buffer_unordered(8);
        deliveries.map(|accepted| accepted.seq).fold(0, async |a, b| a.max(b)).await
    }
}

impl App {
    /// Reads as a dashboard with the test's API key.
    pub async fn get(&self, path: &str) -> Answer {
        self.try_get(path).await.unwrap_or_else(|error| panic!("GET {path}: {error:#}"))
    }

    pub async fn try_get(&self, path: &str) -> Result<Answer> {
        let key = format!("Bearer {}", self.api_key);
        self.query_api.get(path, &[("authorization", &key)]).await
    }

    /// Reads what stands when the read models have the stream up to `seq`; tries again while they are behind.
    pub async fn get_at(&self, path: &str, seq: u64) -> Answer {
        let joint = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{joint}min_seq={seq}");
        eventually(&format!("GET {path} gives 200"), PATIENCE, async || {
            let answer = self.try_get(&path).await.ok()?;
            assert!(matches!(answer.status, 200 | 503), "GET {path}: {answer:?}");
            (answer.status == 200).then_some(answer)
        })
        .await
    }
}

fn accepted(answer: &Answer) -> Accepted {
    let seq = answer.header("leadpulse-seq").and_then(|text| text.parse().ok());
    Accepted {
        seq: seq.unwrap_or_else(|| panic!("no Leadpulse-Seq in {answer:?}")),
        duplicate: answer.header("leadpulse-duplicate") == Some("true"),
    }
}
