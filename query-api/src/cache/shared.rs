//! Redis, which may be off, dead, frozen or slow: then it is as if nothing were in it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use leadpulse_service::{config::Redis, health::Dependency};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;

/// No read waits longer for Redis.
const ANSWER: Duration = Duration::from_millis(40);
const CONNECT: Duration = Duration::from_millis(100);
/// Between two looks whether it is back.
const LOOK: Duration = Duration::from_millis(500);
/// Larger answers stay in memory.
const LARGEST: usize = 1024 * 1024;

/// How long a lease holds when its owner dies.
const LEASE_MILLIS: u64 = 2000;

/// Who makes an answer that no level has.
pub(crate) enum Lease {
    /// This process, and the others wait for it.
    Held(#[expect(dead_code, reason = "it ends with its owner")] Held),
    /// Another process.
    Elsewhere,
    /// Redis is not in use: every process for itself.
    None,
}

pub(crate) struct Held {
    name: String,
    /// Nobody else's: a lease that has ended by itself may be another's by now.
    token: String,
    manager: ConnectionManager,
}

/// Ends a lease that is still its owner's.
const END: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end";

/// The second level. A first failure opens the breaker; only a look of our own closes it, so reads never
/// pay for finding out.
pub(crate) struct Shared {
    manager: Option<ConnectionManager>,
    closed: AtomicBool,
    /// Whose answers these are: two installations may have one Redis, and orgs of the same name. Until it is
    /// known, Redis is not used.
    instance: OnceLock<[u8; 16]>,
    dependency: Option<Dependency>,
}

impl Shared {
    pub(crate) fn off() -> Arc<Self> {
        let (closed, instance) = Default::default();
        Arc::new(Self { manager: None, closed, instance, dependency: None })
    }

    /// Connects when it is first used; must be called within a runtime.
    pub(crate) fn new(
        config: &Redis,
        dependency: Dependency,
    ) -> Result<Arc<Self>, redis::RedisError> {
        let client = redis::Client::open(config.url.expose_secret())?;
        let settings = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(1)
            .set_max_delay(CONNECT);
        let manager = ConnectionManager::new_lazy_with_config(client, settings)?;
        let (closed, instance) = Default::default();
        let (manager, dependency) = (Some(manager), Some(dependency));
        Ok(Arc::new(Self { manager, closed, instance, dependency }))
    }

    pub(super) fn belongs_to(&self, instance: [u8; 16]) {
        let _ = self.instance.set(instance);
    }

    pub(super) async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let (mut manager, name) = self.ready(key)?;
        let mut command = redis::cmd("GET");
        command.arg(name);
        match timeout(ANSWER, command.query_async::<Option<Vec<u8>>>(&mut manager)).await {
            Ok(Ok(found)) => found,
            failed => {
                self.open(&reason(failed));
                None
            }
        }
    }

    /// The right to make an answer, for a short time. It is advice: who can't ask Redis has it.
    pub(super) async fn lease(&self, key: &str) -> Lease {
        let Some((mut manager, name)) = self.ready(key) else { return Lease::None };
        let (name, token) = (format!("{name}:lease"), hex::encode(rand::random::<[u8; 8]>()));
        let mut command = redis::cmd("SET");
        command.arg(&name).arg(&token).arg("NX").arg("PX").arg(LEASE_MILLIS);
        match timeout(ANSWER, command.query_async::<Option<String>>(&mut manager)).await {
            Ok(Ok(Some(_))) => Lease::Held(Held { name, token, manager }),
            Ok(Ok(None)) => Lease::Elsewhere,
            failed => {
                self.open(&reason(failed));
                Lease::None
            }
        }
    }

    /// Nobody waits for it.
    pub(super) fn put(self: &Arc<Self>, key: &str, lives: Duration, bytes: impl Fn() -> Vec<u8>) {
        let Some((mut manager, name)) = self.ready(key) else { return };
        let millis = u64::try_from(lives.as_millis()).unwrap_or(0);
        let bytes = bytes();
        if millis == 0 || bytes.len() > LARGEST {
            return;
        }
        let mut command = redis::cmd("SET");
        command.arg(name).arg(bytes).arg("PX").arg(millis);
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let done = timeout(ANSWER, command.query_async::<()>(&mut manager)).await;
            if !matches!(done, Ok(Ok(()))) {
                this.open(&reason(done));
            }
        });
    }

    /// Looks after the breaker until told to stop.
    pub(crate) async fn watch(&self, stop: CancellationToken) {
        let (Some(manager), Some(dependency)) = (&self.manager, &self.dependency) else { return };
        loop {
            let started = Instant::now();
            let mut manager = manager.clone();
            let ping = redis::cmd("PING");
            match timeout(CONNECT * 2, ping.query_async::<String>(&mut manager)).await {
                Ok(Ok(_)) => {
                    if !self.closed.swap(true, Ordering::Relaxed) {
                        info!("redis is in use");
                        ask_for_version(&mut manager, dependency).await;
                    }
                    dependency.up(Some(started.elapsed()), "breaker closed");
                }
                failed => self.open(&reason(failed)),
            }
            let closed = f64::from(u8::from(self.closed.load(Ordering::Relaxed)));
            metrics::gauge!("query_api_redis_breaker_closed").set(closed);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// The way to Redis, and the key's name there.
    fn ready(&self, key: &str) -> Option<(ConnectionManager, String)> {
        let manager = self.manager.as_ref().filter(|_| self.closed.load(Ordering::Relaxed))?;
        Some((manager.clone(), name(self.instance.get()?, key)))
    }

    fn open(&self, reason: &str) {
        if self.closed.swap(false, Ordering::Relaxed) {
            info!(reason, "redis is not used until it answers again");
            metrics::counter!("query_api_redis_breaker_opened_total").increment(1);
        }
        if let Some(dependency) = &self.dependency {
            dependency.down(reason);
        }
    }
}

/// A user of few rights is not told, and needs not know.
async fn ask_for_version(manager: &mut ConnectionManager, dependency: &Dependency) {
    let mut info = redis::cmd("INFO");
    info.arg("server");
    if let Ok(Ok(told)) = timeout(CONNECT * 2, info.query_async::<String>(manager)).await
        && let Some(version) = version(&told)
    {
        dependency.is_of_version(version);
    }
}

/// Valkey tells the version of Redis that it is compatible with, and its own beside it.
fn version(info: &str) -> Option<&str> {
    let of = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
    of("valkey_version:").or_else(|| of("redis_version:")).map(str::trim)
}

impl Drop for Held {
    /// Also where the answer was not made: then somebody else may try. Nobody waits for it.
    fn drop(&mut self) {
        let (name, token) = (std::mem::take(&mut self.name), std::mem::take(&mut self.token));
        let mut manager = self.manager.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let mut command = redis::cmd("EVAL");
                command.arg(END).arg(1).arg(name).arg(token);
                // What is not deleted ends by itself.
                let _ = timeout(ANSWER, command.query_async::<()>(&mut manager)).await;
            });
        }
    }
}

/// Keys of Redis are short and plain, whatever a client put into its parameters.
fn name(instance: &[u8; 16], key: &str) -> String {
    let hash = Sha256::new().chain_update(instance).chain_update(key).finalize();
    format!("lp:answer:{}", hex::encode(hash))
}

fn reason<T>(failed: Result<Result<T, redis::RedisError>, tokio::time::error::Elapsed>) -> String {
    match failed {
        // Its text may hold an address, never a password.
        Ok(Err(error)) => format!("breaker open: {}", error.category()),
        Ok(Ok(_)) | Err(_) => "breaker open: no answer in time".to_owned(),
    }
}
