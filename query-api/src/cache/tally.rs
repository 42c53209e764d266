//! How many reads of a family came from where: for the metrics and for `/health/detailed`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::{Map, Value, json};

use super::Origin;

/// Counted here and told to the metrics once a second: a read from memory is too short to look a counter
/// up by its labels.
#[derive(Debug, Default)]
pub(super) struct Tally {
    families: RwLock<BTreeMap<&'static str, Arc<Counts>>>,
}

type Counts = [AtomicU64; Origin::ALL.len()];

impl Tally {
    pub(super) fn count(&self, family: &'static str, origin: Origin) {
        let add = |counts: &Counts| counts[origin as usize].fetch_add(1, Ordering::Relaxed);
        let known = self.families.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counts) = known.get(family) {
            add(counts);
            return;
        }
        drop(known);
        let mut families = self.families.write().unwrap_or_else(PoisonError::into_inner);
        add(families.entry(family).or_default());
    }

    fn all(&self) -> Vec<(&'static str, [u64; Origin::ALL.len()])> {
        let families = self.families.read().unwrap_or_else(PoisonError::into_inner);
        let read = |counts: &Counts| counts.each_ref().map(|n| n.load(Ordering::Relaxed));
        families.iter().map(|(family, counts)| (*family, read(counts))).collect()
    }

    pub(super) fn publish(&self) {
        for (family, counts) in self.all() {
            for (origin, count) in Origin::ALL.into_iter().zip(counts) {
                metrics::counter!(
                    "query_api_reads_total", "family" => family, "from" => origin.as_str()
                )
                .absolute(count);
            }
        }
    }

    /// Reads and hit rates: of all reads those from memory, and of those that memory did not have and nobody else
    /// was making, Redis'.
    pub(super) fn view(&self) -> Value {
        let mut families = Map::new();
        for (family, counts) in self.all() {
            let of = |origin: Origin| counts[origin as usize];
            let memory = of(Origin::Near) + of(Origin::Stale);
            let (redis, made) = (of(Origin::Far), of(Origin::Database) + of(Origin::Uncached));
            let reads = counts.iter().sum();
            let view = json!({
                "reads": reads,
                "memory_hit_rate": rate(memory, reads),
                "redis_hit_rate": rate(redis, redis + made),
            });
            families.insert(family.to_owned(), view);
        }
        Value::Object(families)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 1e4).round() / 1e4)
}
