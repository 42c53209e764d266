//! Random histories in monday.com's own payload dialect: everything that its real endpoints were seen to
//! send, and the traps among it. One set of strategies serves both uses: property tests shrink
//! what they find, end-to-end tests draw a history from a seed.

mod deed;
mod journey;
mod oddity;
mod payload;
mod value;

pub use payload::Webhook;

use std::collections::BTreeMap;

use proptest::{
    collection::vec,
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::Value;

use crate::{
    naive::{Arrival, Micros},
    rules::Rules,
};

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const DAY: Micros = 24 * HOUR;

/// The agents of every history; each is also somebody who does things.
pub const AGENTS: [i64; 6] = [7001, 7002, 7003, 7004, 7005, 9_007_199_254_740_993];

/// A board that no rules map.
pub const UNMAPPED_BOARD: i64 = 9777;

/// How many items a history is about, and how many things happen (a whole journey of a lead is one of
/// them). Few items collide more.
#[derive(Debug, Clone)]
pub struct Size {
    pub items: i64,
    pub events: std::ops::Range<usize>,
}

/// Deliveries in the order in which they arrive: shuffled, with retries and twins among them.
pub fn history(rules: &Rules, size: &Size, now: Micros) -> BoxedStrategy<Vec<String>> {
    let alone = deed::webhook(rules, size.items, now).prop_map(|webhook| vec![webhook]);
    let story = prop_oneof![15 => alone, 1 => journey::journey(rules, size.items, now)];
    let echoed = story.prop_flat_map(|webhooks| {
        let echoes = vec(echo(), webhooks.len());
        (Just(webhooks), echoes)
    });
    vec(echoed, size.events.clone())
        .prop_map(|stories| {
            let told =
                stories.into_iter().flat_map(|(webhooks, echoes)| webhooks.into_iter().zip(echoes));
            told.flat_map(|(webhook, echo)| echoes(webhook, echo)).collect::<Vec<_>>()
        })
        .prop_shuffle()
        .boxed()
}

/// The history that belongs to a seed.
pub fn seeded_history(rules: &Rules, size: &Size, now: Micros, seed: u64) -> Vec<String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    history(rules, size, now)
        .new_tree(&mut runner)
        .expect("the strategies reject nothing")
        .current()
}

/// One event of every type, in each of its spellings.
pub fn one_of_each_type(rules: &Rules, now: Micros, seed: u64) -> Vec<String> {
    let many = seeded_history(rules, &Size { items: 9, events: 3000..3001 }, now, seed);
    let type_of = |event: &String| {
        serde_json::from_str::<Value>(event).ok()?["type"].as_str().map(str::to_owned)
    };
    let by_type: BTreeMap<String, String> =
        many.into_iter().filter_map(|event| Some((type_of(&event)?, event))).collect();
    by_type.into_values().collect()
}

/// How a webhook is repeated.
#[derive(Debug, Clone, Copy)]
enum Echo {
    Once,
    /// monday.com did not see the answer and tries again: the same event, stamped anew.
    Retried(Micros),
    /// The same webhook was created twice: everything comes twice, as two subscriptions.
    Twin,
}

fn echo() -> impl Strategy<Value = Echo> {
    prop_oneof![
        8 => Just(Echo::Once),
        2 => (1..30i64).prop_map(|minutes| Echo::Retried(minutes * MINUTE)),
        1 => Just(Echo::Twin),
    ]
}

fn echoes(webhook: Webhook, echo: Echo) -> Vec<String> {
    match echo {
        Echo::Once => vec![webhook.to_json()],
        Echo::Retried(later) => vec![webhook.to_json(), webhook.retried(later).to_json()],
        Echo::Twin => vec![webhook.to_json(), webhook.twin().to_json()],
    }
}

/// Gives each delivery the next place in the stream and an arrival shortly after the one before.
pub fn arrivals(deliveries: &[String], first_at: Micros) -> Vec<Arrival> {
    (1u64..)
        .zip(deliveries)
        .scan(first_at, |at, (seq, event)| {
            *at += 137;
            Some(Arrival { seq, received_at: *at, event: event.clone() })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::naive::{Event, Kind, World};

    const NOW: Micros = 1_772_445_600_000_000;

    #[test]
    fn a_seed_always_gives_the_same_history_and_another_seed_another() {
        let (rules, size) = (Rules::default(), Size { items: 5, events: 20..30 });
        let history = |seed| seeded_history(&rules, &size, NOW, seed);
        assert_eq!(history(1), history(1));
        assert_ne!(history(1), history(2));
    }

    #[test]
    fn every_name_of_mondays_table_occurs() {
        let types: BTreeSet<String> = one_of_each_type(&Rules::default(), NOW, 7)
            .iter()
            .map(|event| {
                serde_json::from_str::<Value>(event).unwrap()["type"].as_str().unwrap().to_owned()
            })
            .collect();
        let table = "create_item create_pulse create_subitem change_column_value change_status_column_value \
            change_specific_column_value change_subitem_column_value update_column_value change_name \
            change_subitem_name update_name item_archived item_deleted item_restored archive_pulse delete_pulse \
            restore_pulse subitem_archived subitem_deleted item_moved_to_any_group item_moved_to_specific_group \
            move_pulse_into_group move_subitem create_update edit_update delete_update create_subitem_update \
            create_column move_pulse_into_board item_snapshot user_snapshot";
        for name in table.split_whitespace() {
            assert!(types.contains(name), "{name} is not in {types:?}");
        }
    }

    #[test]
    fn a_long_history_has_everything_in_it() {
        let rules = Rules::default();
        let deliveries = seeded_history(&rules, &Size { items: 60, events: 2000..2001 }, NOW, 7);
        let arrivals = arrivals(&deliveries, NOW);
        let events: Vec<Event> = arrivals.iter().map(Event::read).collect();
        let kinds: BTreeSet<String> =
            events.iter().map(|event| format!("{:?}", event.kind)).collect();
        assert_eq!(kinds.len(), 16, "{kinds:?}");
        assert!(events.iter().all(|event| event.json.is_object()));
        assert!(
            events.iter().any(|event| event.kind == Kind::CreatePulse && event.lead().is_none())
        );

        let ids: BTreeSet<&str> = events.iter().map(|event| event.id.as_str()).collect();
        assert!(ids.len() < events.len() && ids.len() > events.len() / 2);
        let world = World::of(&arrivals, &rules);
        let won = world.leads.values().filter(|lead| lead.closed_by_user_id.is_some()).count();
        let touched = world.leads.values().filter(|lead| lead.first_touch_at.is_some()).count();
        assert!(
            world.leads.len() > 60 && won > 10 && touched > 40,
            "{} {won} {touched}",
            world.leads.len()
        );
        assert!(world.users.len() > 3);
    }
}
