//! Who may post: the sources of the configuration with their secrets, ready to verify.

mod rate;
pub mod reload;

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Instant,
};

use leadpulse_service::config::{Config, Environment, Unusable, process_environment};
use metrics::{Counter, counter};

use crate::{
    answer::Refusal,
    quarantine::SealingKey,
    verify::{Verifier, token_digest},
};
use rate::Rate;

/// Characters of a stranger's key that are shown: as long as a key may be.
const SHOWN: usize = 63;

/// One source of webhooks, of one org.
#[derive(Debug)]
pub struct Source {
    pub org: String,
    pub key: String,
    pub(crate) verifier: Verifier,
    rate: Rate,
    quarantined: Rate,
    without_body: Rate,
    quarantined_bytes: Rate,
    stored: OnceLock<Counter>,
}

/// Refused webhooks of one source that are kept, a second: a flood of rubbish must not push out what is
/// worth mending. Their bytes have a bound of their own (`ingest.quarantine_kib_per_second`).
const QUARANTINED_PER_SECOND: u32 = 200;
/// And of those whose body was not read, which nobody can ever release: anybody can send them, and they must not
/// crowd out the others.
const WITHOUT_BODY_PER_SECOND: u32 = 20;

impl Source {
    fn new(org: &str, key: &str, verifier: Verifier, rates: Rates) -> Self {
        let now = Instant::now();
        Self {
            org: org.to_owned(),
            key: key.to_owned(),
            verifier,
            rate: Rate::new(rates.webhooks, now),
            quarantined: Rate::new(QUARANTINED_PER_SECOND, now),
            without_body: Rate::new(WITHOUT_BODY_PER_SECOND, now),
            quarantined_bytes: Rate::new(rates.quarantined_bytes, now),
            stored: OnceLock::new(),
        }
    }

    /// One more webhook of this source, if its rate allows it.
    pub fn admits_one_more(&self) -> bool {
        self.rate.take(1.0, Instant::now())
    }

    /// Webhooks of this source that were stored: what nearly every one comes to.
    pub(crate) fn stored(&self) -> &Counter {
        self.stored.get_or_init(|| count(&self.key, "stored", "none"))
    }

    /// One more refused webhook of this source may be kept, with so many bytes.
    pub(crate) fn quarantines(&self, refusal: Refusal, bytes: usize) -> Result<(), &'static str> {
        let now = Instant::now();
        if refusal.body_is_missing() {
            // Their entries are small whatever came: their bytes are not taken from the others'.
            return self.without_body.take(1.0, now).then_some(()).ok_or("too_many");
        }
        self.quarantined.take(1.0, now).then_some(()).ok_or("too_many")?;
        let kept = self.quarantined_bytes.take(bytes as f64, now);
        kept.then_some(()).ok_or("too_many_bytes")
    }
}

/// What one source may do in a second.
#[derive(Debug, Clone, Copy)]
struct Rates {
    webhooks: u32,
    quarantined_bytes: u32,
}

/// What webhooks of a source came to.
pub(crate) fn count(source: &str, outcome: &'static str, reason: &'static str) -> Counter {
    let source = source.to_owned();
    counter!("ingest_webhooks_total", "source" => source, "outcome" => outcome, "reason" => reason)
}

#[derive(Debug)]
pub struct Sources {
    by_key: HashMap<String, Arc<Source>>,
    stranger: Arc<Source>,
}

/// Everything that the configuration keeps elsewhere, found.
pub struct Secrets {
    pub sources: Sources,
    pub quarantine_key: Option<SealingKey>,
}

impl Secrets {
    /// Finds them in this process's environment and in files; all that is missing is reported together.
    pub fn resolve(config: &Config) -> Result<Self, Unusable> {
        let environment = &process_environment;
        let sources = Sources::resolve(config, environment);
        let key = SealingKey::resolve(config.ingest.quarantine_key.as_ref(), environment);
        match (sources, key) {
            (Ok(sources), Ok(quarantine_key)) => Ok(Self { sources, quarantine_key }),
            (sources, key) => {
                let problems = [sources.err(), key.err()].into_iter().flatten();
                Err(Unusable(problems.flat_map(|unusable| unusable.0).collect()))
            }
        }
    }
}

impl Sources {
    /// Finds every secret; all that can't be found is reported together.
    pub fn resolve(config: &Config, environment: Environment<'_>) -> Result<Self, Unusable> {
        let quarantined_bytes = config.ingest.quarantine_bytes_per_second;
        let mut by_key = HashMap::new();
        let mut problems = Vec::new();
        for org in &config.orgs {
            for source in &org.sources {
                match Verifier::new(&source.verify, environment) {
                    Ok(verifier) => {
                        let rates = Rates { webhooks: source.rate_per_second, quarantined_bytes };
                        let source = Source::new(&org.id, &source.key, verifier, rates);
                        by_key.insert(source.key.clone(), Arc::new(source));
                    }
                    Err(found) => problems.extend(found),
                }
            }
        }
        let rates = Rates { webhooks: 1, quarantined_bytes };
        let stranger = Source::new("", "unknown", Verifier::that_refuses(), rates);
        match problems.is_empty() {
            true => Ok(Self { by_key, stranger: Arc::new(stranger) }),
            false => Err(Unusable(problems)),
        }
    }

    /// The source of a URL, and whether it is a stranger's. A key that nobody has gives a source that
    /// refuses everything, and takes as long about it as a real one: the time of an answer must not tell
    /// which keys exist.
    pub fn of(&self, key: &str) -> (Arc<Source>, bool) {
        match self.by_key.get(key) {
            Some(source) => (Arc::clone(source), false),
            None => (self.stranger(), true),
        }
    }

    /// The source of all that is no source's.
    pub(crate) fn stranger(&self) -> Arc<Source> {
        Arc::clone(&self.stranger)
    }

    /// What may be shown of a key that nobody has. Whoever has spelt the URL wrongly may have put the token
    /// there.
    pub(crate) fn shown(&self, key: &str) -> String {
        let is_token = |part: &str| {
            let digest = token_digest(part);
            self.by_key.values().any(|source| source.verifier.knows_token(&digest))
        };
        // More parts do not begin in what is shown.
        let secret = is_token(key) || key.split('/').take(SHOWN + 1).any(is_token);
        if secret { "redacted".to_owned() } else { key.chars().take(SHOWN).collect() }
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}
