//! The laws of the fold, on generated histories. That it also means what spec.md says is shown in the
//! integration tests, against a second implementation written from the page.

use leadpulse_service::config::{Board, Labels};
use proptest::{collection::vec, option, prelude::*, sample::Index};

use super::*;
use crate::event::{LeadKey, Write};

fn board() -> Board {
    let labels =
        |ids: &[i64], text: &str| Labels { ids: ids.to_vec(), texts: vec![text.to_owned()] };
    Board {
        id: 1,
        contacted: labels(&[1], "called"),
        won: labels(&[2, 4], "won"),
        lost: labels(&[3], "lost"),
        ..Board::default()
    }
}

/// Few values and few instants, so that ties, runs and reopenings are common.
fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        "[ab]".prop_map(Field::Name),
        "[ab]".prop_map(Field::Group),
        option::of(0..6_i64).prop_map(|id| Field::Status(
            id.map(|id| Status { id: Some(id), label: Some("x".into()) })
        )),
        option::of(1..4_i64).prop_map(Field::Owner),
        option::of(0..3_u32).prop_map(|amount| Field::Amount(amount.map(Into::into))),
        option::of("[ab]").prop_map(Field::Industry),
        option::of(1..3_i32).prop_map(|day| Field::NextCall(
            day.and_then(chrono::NaiveDate::from_num_days_from_ce_opt)
        )),
        prop_oneof![Just(Lifecycle::Active), Just(Lifecycle::Archived), Just(Lifecycle::Deleted)]
            .prop_map(Field::Lifecycle),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        Just(Act::Created),
        option::of(0..20_i64).prop_map(|created_at| Act::Snapshot { created_at }),
        Just(Act::Commented),
        Just(Act::Other),
        Just(Act::Other),
    ]
}

/// A history: event `n` has id and sequence `n`.
fn history() -> impl Strategy<Value = Vec<LeadEvent>> {
    let event = (act(), 0..20_i64, any::<bool>(), vec(field(), 0..3));
    vec(event, 1..25).prop_map(|events| {
        let key = LeadKey { org_id: "demo".into(), board_id: 1, item_id: 1 };
        let numbered = events.into_iter().zip(1_u64..);
        numbered
            .map(|((act, at, human, fields), n)| LeadEvent {
                key: key.clone(),
                seq: n,
                trace_id: Some(uuid::Uuid::from_u128(n.into())),
                // Ids do not follow the order of arrival.
                event_id: format!("{}", n * 7 % 25),
                occurred_at: at,
                act,
                human: human && !matches!(act, Act::Snapshot { .. }),
                writes: fields.into_iter().map(|field| Write { at, field }).collect(),
            })
            .collect()
    })
}

/// An event writes a field at most once in monday.com's payloads; generated ones keep to that.
fn one_write_a_field(mut events: Vec<LeadEvent>) -> Vec<LeadEvent> {
    for event in &mut events {
        let mut seen = Vec::new();
        event.writes.retain(|write| {
            let kind = std::mem::discriminant(&write.field);
            let new = !seen.contains(&kind);
            seen.push(kind);
            new
        });
    }
    events
}

fn folded<'e>(events: impl IntoIterator<Item = &'e LeadEvent>) -> LeadState {
    let mut state = LeadState::default();
    for event in events {
        state.apply(event);
    }
    state
}

proptest! {
    #[test]
    fn any_permutation_and_duplication_gives_the_same_state(
        events in history().prop_map(one_write_a_field),
        again in vec(any::<Index>(), 0..10),
        order in any::<u64>(),
    ) {
        let expected = folded(&events);
        let mut shuffled: Vec<&LeadEvent> = events.iter().collect();
        shuffled.extend(again.iter().map(|index| index.get(&events)));
        // A cheap shuffle that the seed decides.
        shuffled.sort_by_key(|event| (event.seq.wrapping_mul(order | 1)).rotate_left(17) ^ order);
        let state = folded(shuffled);
        prop_assert_eq!(&state, &expected);
        prop_assert_eq!(state.encode(), expected.encode());
        prop_assert_eq!(state.row(&board()), expected.row(&board()));
    }

    #[test]
    fn a_state_survives_its_store_between_any_two_batches(
        events in history().prop_map(one_write_a_field),
        cut in any::<Index>(),
    ) {
        let (first, rest) = events.split_at(cut.index(events.len()));
        let mut state = LeadState::decode(&folded(first).encode()).unwrap();
        for event in rest {
            state.apply(event);
        }
        prop_assert_eq!(state, folded(&events));
    }

    #[test]
    fn a_row_never_contradicts_itself(events in history()) {
        let row = folded(&events).row(&board()).unwrap();
        prop_assert_eq!(row.closed_won_at.is_some(), row.state == State::Won);
        prop_assert_eq!(row.closed_lost_at.is_some(), row.state == State::Lost);
        prop_assert_eq!(row.assigned_at.is_some(), row.assigned_user_id.is_some());
        prop_assert!(row.closed_by_user_id.is_none() || row.state == State::Won);
        prop_assert!(row.last_activity_at.is_none_or(|at| at <= row.last_event_at));
    }
}
