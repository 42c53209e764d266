//! Webhooks through the door: signed as monday.com signs them, some at once, repeated where monday.com
//! would repeat them.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt, stream};
use hmac::{Hmac, KeyInit, Mac};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use sha2::Sha256;

use super::History;
use crate::say::Progress;

const AT_ONCE: usize = 64;
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// The door, and the key to it.
pub struct Feed {
    url: String,
    secret: String,
    http: reqwest::Client,
}

impl Feed {
    pub fn new(ingest_url: String, source: &str, secret: &str) -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .pool_max_idle_per_host(AT_ONCE)
            .no_proxy()
            .build()?;
        let url = format!("{ingest_url}/webhooks/monday/{source}");
        Ok(Self { url, secret: secret.to_owned(), http })
    }

    /// Delivers one webhook; gives its sequence in the stream.
    pub async fn send(&self, body: &Value) -> Result<u64> {
        let start = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            let wrong = match self.attempt(body).await? {
                Ok(seq) => return Ok(seq),
                Err(wrong) => wrong,
            };
            if start.elapsed() > GIVE_UP_AFTER {
                bail!("ingest takes no webhooks ({wrong}); see .local/log/ingest.log");
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// The inner error is one that may pass.
    async fn attempt(&self, body: &Value) -> Result<Result<u64, String>> {
        let request = self.http.post(&self.url).header("authorization", self.token()?).json(body);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(format!("{:#}", anyhow::Error::from(error)))),
        };
        let status = answer.status();
        if status.is_success() {
            let seq = answer.headers().get("leadpulse-seq");
            let seq = seq.and_then(|seq| seq.to_str().ok()?.parse().ok());
            answer.bytes().await.ok();
            return Ok(Ok(seq.unwrap_or(0)));
        }
        if status.is_server_error() || status.as_u16() == 429 {
            return Ok(Err(status.to_string()));
        }
        bail!("ingest refused a webhook: {status} {}", answer.text().await.unwrap_or_default())
    }

    /// The token that monday.com puts beside each webhook.
    fn token(&self) -> Result<String> {
        let now = Utc::now().timestamp();
        let claims = json!({
            "accountId": 1, "userId": 7001, "aud": self.url, "iat": now, "exp": now + 300,
            "shortLivedToken": "demo",
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed =
            format!("{}.{}", part(&json!({ "alg": "HS256", "typ": "JWT" })), part(&claims));
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes())?;
        mac.update(signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
        Ok(format!("{signed}.{signature}"))
    }
}

/// Plays the 90 days that end at `until` (unix seconds); gives the highest sequence told.
pub async fn play_history(feed: &Feed, until: i64, progress: Progress) -> Result<u64> {
    let until = DateTime::from_timestamp(until, 0).context("the history's end is no time")?;
    let history = History::until(until);
    let count = history.webhooks.len();
    progress.say(&format!("playing 90 days of a demo team: {count} signed webhooks"));
    let start = Instant::now();
    let highest = AtomicU64::new(0);
    let bar = bar(count);
    stream::iter(&history.webhooks)
        .map(|webhook| async {
            highest.fetch_max(feed.send(webhook).await?, Ordering::Relaxed);
            bar.inc(1);
            Ok::<(), anyhow::Error>(())
        })
        .buffered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    bar.finish_and_clear();
    let rate = count as f64 / start.elapsed().as_secs_f64();
    progress.say(&format!("played {count} webhooks, {rate:.0} a second"));
    Ok(highest.into_inner())
}

/// Hidden where standard error is no terminal.
fn bar(count: usize) -> ProgressBar {
    let bar = ProgressBar::new(count as u64);
    let template = "         {bar:30} {pos}/{len} webhooks, {per_sec:.0}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_signed_over_what_it_says() {
        let feed = Feed::new("http://127.0.0.1:1".into(), "demo-crm", "s3cret").unwrap();
        let token = feed.token().unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(b"s3cret").unwrap();
        mac.update(signed.as_bytes());
        mac.verify_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').unwrap().1).unwrap();
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["aud"], "http://127.0.0.1:1/webhooks/monday/demo-crm");
    }
}
