//! The projector's fold against the naive implementation, without any server: whatever happens, in
//! whatever order and batches it is told, both come to the same rows.

use std::collections::BTreeMap;

use leadpulse_service::config::{Config, HotRule};
use projector::{
    agents::{
        figures::{Figures, figures},
        lead::{Industries, Lead as AgentLead},
    },
    event::{self, LeadEvent, Lifecycle as FoldedLifecycle, Meaning},
    fold::{LeadRow, LeadState, State as FoldedState},
    mapping::Mapping,
};
use proptest::{collection::vec, prelude::*};
use rust_decimal::{Decimal, prelude::ToPrimitive};
use tests::{
    generate::{Size, arrivals, history},
    harness::{ORG, configuration, envelope, long_run},
    naive::{
        AgentMetrics, Arrival, EnteredSource, Event, Lead, Lifecycle, Micros, State, World, agents,
    },
    rules::Rules,
};

/// 2026-03-02T10:00:00Z: when all of it arrives.
const NOW: Micros = 1_772_445_600_000_000;
const DAY: Micros = 86_400_000_000;

fn mapping(rules: &Rules) -> (Config, Mapping) {
    let text = configuration(rules);
    let config = Config::parse("leadpulse.toml", &text, &|_| None).unwrap();
    let mapping = Mapping::of(&config);
    (config, mapping)
}

/// What the stream would hold: the first arrival of each event.
fn stream(deliveries: &[String]) -> Vec<Arrival> {
    let mut known = std::collections::BTreeSet::new();
    let mut kept = arrivals(deliveries, NOW);
    kept.retain(|arrival| known.insert(Event::read(arrival).id));
    kept
}

fn told(stream: &[Arrival], mapping: &Mapping) -> Vec<LeadEvent> {
    let meaning =
        |arrival: &Arrival| match event::decode(&envelope(arrival), arrival.seq, None, mapping) {
            Meaning::Lead(event) => Some(event),
            _ => None,
        };
    stream.iter().filter_map(meaning).collect()
}

/// Folds in this order; the state goes through its stored form after every event where `stored`.
fn fold(events: &[LeadEvent], stored: bool, config: &Config) -> BTreeMap<(i64, i64), Lead> {
    let mut states: BTreeMap<(i64, i64), LeadState> = BTreeMap::new();
    for event in events {
        let state = states.entry((event.key.board_id, event.key.item_id)).or_default();
        state.apply(event);
        if stored {
            *state = LeadState::decode(&state.encode()).unwrap();
        }
    }
    let boards = &config.org(ORG).unwrap().boards;
    states
        .into_iter()
        .map(|((board_id, item_id), state)| {
            let board = boards.iter().find(|board| board.id == board_id).unwrap();
            let row = state.row(board).unwrap();
            ((board_id, item_id), as_lead(board_id, item_id, row))
        })
        .collect()
}

fn as_lead(board_id: i64, item_id: i64, row: LeadRow) -> Lead {
    let micros = |at: Option<chrono::DateTime<chrono::Utc>>| at.map(|at| at.timestamp_micros());
    Lead {
        board_id,
        item_id,
        name: row.name,
        group_id: row.group_id,
        status_id: row.status_id,
        status_label: row.status_label,
        assigned_user_id: row.assigned_user_id,
        assigned_at: micros(row.assigned_at),
        deal_amount: row.deal_amount,
        industry: row.industry,
        next_call_date: row.next_call_date,
        entered_at: row.entered_at.timestamp_micros(),
        entered_source: match row.entered_source {
            "api" => EnteredSource::Api,
            "created" => EnteredSource::Created,
            "first_seen" => EnteredSource::FirstSeen,
            other => panic!("entered_source {other}"),
        },
        first_touch_at: micros(row.first_touch_at),
        last_activity_at: micros(row.last_activity_at),
        state: match row.state {
            FoldedState::Open => State::Open,
            FoldedState::Won => State::Won,
            FoldedState::Lost => State::Lost,
        },
        closed_won_at: micros(row.closed_won_at),
        closed_lost_at: micros(row.closed_lost_at),
        closed_by_user_id: row.closed_by_user_id,
        lifecycle: match row.lifecycle {
            FoldedLifecycle::Active => Lifecycle::Active,
            FoldedLifecycle::Archived => Lifecycle::Archived,
            FoldedLifecycle::Deleted => Lifecycle::Deleted,
        },
        last_event_at: row.last_event_at.timestamp_micros(),
        last_seq: row.last_seq,
    }
}

fn small() -> Size {
    Size { items: 3, events: 1..60 }
}

fn cases() -> ProptestConfig {
    let cases = if long_run() { 3000 } else { 200 };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_fold_gives_the_rows_that_the_page_says(
        deliveries in history(&Rules::default(), &small(), NOW),
    ) {
        let rules = Rules::default();
        let (config, mapping) = mapping(&rules);
        let stream = stream(&deliveries);
        let naive = World::of(&stream, &rules).leads;
        let folded = fold(&told(&stream, &mapping), false, &config);
        for (key, lead) in &naive {
            prop_assert_eq!(folded.get(key), Some(lead), "lead {:?}", key);
        }
        prop_assert_eq!(folded.len(), naive.len());
    }

    #[test]
    fn any_order_any_duplication_and_any_batching_give_the_same_rows(
        (deliveries, order, again) in history(&Rules::default(), &small(), NOW).prop_flat_map(|deliveries| {
            let n = deliveries.len();
            let order = Just((0..n).collect::<Vec<_>>()).prop_shuffle();
            (Just(deliveries), order, vec(0..n, 0..10))
        }),
    ) {
        let rules = Rules::default();
        let (config, mapping) = mapping(&rules);
        let events = told(&stream(&deliveries), &mapping);
        let in_order = fold(&events, false, &config);
        let shuffled: Vec<LeadEvent> = order
            .iter()
            .chain(&again)
            .filter_map(|index| events.get(*index).cloned())
            .collect();
        prop_assert_eq!(fold(&shuffled, true, &config), in_order);
    }

    #[test]
    fn an_agents_figures_are_the_pages_until_their_instant_comes(
        deliveries in history(&Rules::default(), &Size { items: 12, events: 100..200 }, NOW),
        days in prop_oneof![Just(7u32), Just(30), Just(90)],
    ) {
        let rules = Rules::default();
        let world = World::of(&stream(&deliveries), &rules);
        let leads = world.all_leads();
        let hot = HotRule { window_hours: rules.hot_window_hours, min_deals: rules.hot_min_deals };
        for agent in agents(&leads) {
            let now = NOW + DAY / 24;
            let (of_agent, industries) = leads_of(&leads, agent);
            let found = figures(&of_agent, &industries, days, hot, now);
            let wanted = AgentMetrics::of(&leads, &rules, agent, days, now);
            assert_same(&found, &wanted);
            // Until then nothing moves.
            if let Some(until) = found.valid_until {
                prop_assert!(until > now);
                prop_assert_eq!(AgentMetrics::of(&leads, &rules, agent, days, until - 1), wanted);
            } else {
                prop_assert_eq!(AgentMetrics::of(&leads, &rules, agent, days, now + 300 * DAY), wanted);
            }
        }
    }
}

/// What the projector would read for this agent: its leads and its wins that are not deleted.
fn leads_of(leads: &[&Lead], agent: i64) -> (Vec<AgentLead>, Industries) {
    let mut industries = Industries::default();
    let living = leads.iter().filter(|lead| lead.lifecycle != Lifecycle::Deleted);
    let of_agent = living.map(|lead| AgentLead {
        id: (lead.board_id, lead.item_id),
        entered_at: lead.entered_at,
        first_touch_at: lead.first_touch_at.into(),
        closed_won_at: lead.closed_won_at.into(),
        last_activity_at: lead.last_activity_at.into(),
        deal_amount: lead.deal_amount.unwrap_or_default(),
        industry: industries.number(lead.industry.as_deref()),
        assigned: lead.assigned_user_id == Some(agent),
        won_by: lead.closed_by_user_id == Some(agent),
        active: lead.state == State::Open && lead.lifecycle == Lifecycle::Active,
    });
    let of_agent = of_agent.filter(|lead| lead.assigned || lead.won_by).collect();
    (of_agent, industries)
}

fn assert_same(found: &Figures, wanted: &AgentMetrics) {
    let count = |n: i64| usize::try_from(n).unwrap();
    assert_eq!(count(found.assigned_count), wanted.assigned_count);
    assert_eq!(count(found.touched_count), wanted.touched_count);
    assert_eq!(count(found.cohort_won_count), wanted.cohort_won_count);
    assert_eq!(found.conversion_rate, wanted.conversion_rate);
    assert_eq!(count(found.closed_won_count), wanted.closed_won_count);
    assert_eq!(found.period_conversion_rate, wanted.period_conversion_rate);
    assert_eq!(found.deals_amount_sum, wanted.deals_amount_sum);
    assert_eq!(count(found.deals_amount_count), wanted.deals_amount_count);
    assert_eq!(found.avg_deal_size, wanted.avg_deal_size);
    let seconds = |median: Option<Decimal>| median.and_then(|seconds| seconds.to_f64());
    assert_eq!(found.median_response_seconds, seconds(wanted.median_response.seconds()));
    assert_eq!(found.median_time_to_close_seconds, seconds(wanted.median_time_to_close.seconds()));
    assert_eq!(count(found.time_to_close_count), wanted.median_time_to_close.n);
    assert_eq!(count(found.hot_deals_count), wanted.hot_deals_count);
    assert_eq!(found.is_hot, wanted.is_hot);
    let industries = found.industries.as_object().unwrap();
    assert_eq!(industries.len(), wanted.industries.len(), "{industries:?}");
    for (name, industry) in &wanted.industries {
        let found = &industries[name];
        assert_eq!(found["assigned"], industry.assigned);
        assert_eq!(found["cohort_won"], industry.cohort_won);
        assert_eq!(found["closed_won"], industry.closed_won);
        let sum: Decimal = found["amount_sum"].as_str().unwrap().parse().unwrap();
        assert_eq!(sum, industry.amount_sum);
    }
}
