//! Worked examples, computed by hand from the page.

use std::slice::from_ref;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{
    AgentMetrics, Arrival, EnteredSource, Event, Kpis, Lead, Lifecycle, Median, Micros, State,
    Window, World,
    instant::{DAY, HOUR, MINUTE, SECOND, parse_date_time},
};
use crate::rules::{Board, Label, Rules};

/// 2026-03-02T10:00:00Z, the instant around which the examples happen.
const TEN: Micros = 1_772_445_600 * SECOND;

fn at(text: &str) -> Micros {
    parse_date_time(text).unwrap()
}

fn arrival(seq: u64, event: &Value) -> Arrival {
    Arrival { seq, received_at: TEN + 30 * DAY, event: event.to_string() }
}

fn occurred_at(event: &str, received_at: Micros) -> Micros {
    Event::read(&Arrival { seq: 1, received_at, event: event.into() }).occurred_at
}

/// A change of the column, `minutes` after ten, by user 7001.
fn change(column: &str, minutes: i64, value: Value) -> Value {
    json!({
        "type": "update_column_value", "boardId": 9001, "pulseId": 42, "userId": 7001,
        "subscriptionId": 1, "triggerUuid": format!("{column}{minutes:06}"),
        "columnId": column, "value": value, "changedAt": TEN / SECOND + minutes * 60
    })
}

fn status(minutes: i64, index: i64, text: &str) -> Value {
    change("status", minutes, json!({"label": {"index": index, "text": text}}))
}

fn owner(minutes: i64, user: i64) -> Value {
    change("person", minutes, json!({"personsAndTeams": [{"id": user, "kind": "person"}]}))
}

/// The lead 42 of board 9001 after these events.
fn lead(events: &[Value]) -> Lead {
    let arrivals: Vec<Arrival> = (1u64..).zip(events).map(|(seq, e)| arrival(seq, e)).collect();
    let world = World::of(&arrivals, &Rules::default());
    world.leads[&(9001, 42)].clone()
}

fn minutes(n: i64) -> Micros {
    TEN + n * MINUTE
}

#[test]
fn changed_at_is_cut_after_microseconds_and_wins_over_trigger_time() {
    let event = r#"{"type":"update_column_value","changedAt":1772445600.6281069,"triggerTime":"2026-03-02T10:00:01.044Z"}"#;
    assert_eq!(occurred_at(event, TEN + DAY), TEN + 628_106);
    let event = r#"{"type":"update_column_value","changedAt":"soon","triggerTime":"2026-03-02T10:00:01.044Z"}"#;
    assert_eq!(occurred_at(event, TEN + DAY), TEN + 1_044_000);
    assert_eq!(occurred_at(r#"{"type":"update_name","triggerTime":null}"#, TEN), TEN);
}

#[test]
fn a_creation_happened_when_its_earliest_value_was_written() {
    let event = r#"{"type":"create_item","triggerTime":"2026-03-02T10:00:00.630Z","columnValues":{
        "a":{"changed_at":"2026-03-02T09:59:59.224Z"},"b":{"changed_at":"2025-02-04 19:20:54 +0000"},"c":null}}"#;
    assert_eq!(occurred_at(event, TEN + DAY), at("2025-02-04T19:20:54Z"));
}

#[test]
fn a_clock_more_than_five_minutes_ahead_is_not_believed() {
    let event = r#"{"type":"update_name","triggerTime":"2026-03-02T10:05:00.000Z"}"#;
    assert_eq!(occurred_at(event, TEN), TEN + 5 * MINUTE);
    assert_eq!(occurred_at(event, TEN - 1), TEN - 1);
}

#[test]
fn an_event_without_ids_is_known_by_the_hash_of_what_lasts() {
    let read = |text: &str| Event::read(&Arrival { seq: 1, received_at: 0, event: text.into() }).id;
    assert_eq!(read(r#"{"subscriptionId":501,"triggerUuid":"ab"}"#), "501:ab");
    let id = read(r#"{"type":"x", "boardId":1, "triggerTime":"now", "isRetry":true}"#);
    // sha256 of {"boardId":1,"type":"x"}
    assert_eq!(id, "af3589f1fede06df9d70e9e0ed70ded2d387e0881c32edc26ec7c708176cca32");
    assert_eq!(id, read(r#"{"isRetry":false,"type":"x","boardId":1}"#));
}

#[test]
fn the_later_write_wins_and_the_id_decides_between_equals() {
    let first = status(5, 1, "Contacted");
    let mut second = status(5, 3, "Lost");
    second["triggerUuid"] = json!("zzz");
    for events in [[first.clone(), second.clone()], [second, first]] {
        assert_eq!(lead(&events).status_label.as_deref(), Some("Lost"));
    }
}

#[test]
fn an_owner_is_assigned_since_the_run_began_that_lasts_to_the_end() {
    let events = [owner(1, 7001), owner(2, 7002), owner(3, 7001), owner(4, 7001)];
    let row = lead(&events);
    assert_eq!((row.assigned_user_id, row.assigned_at), (Some(7001), Some(minutes(3))));
    let cleared = lead(&[owner(1, 7001), change("person", 2, json!({}))]);
    assert_eq!((cleared.assigned_user_id, cleared.assigned_at), (None, None));
    let team =
        json!({"personsAndTeams": [{"id": 5, "kind": "team"}, {"id": "7003", "kind": "person"}]});
    assert_eq!(lead(&[change("person", 1, team)]).assigned_user_id, Some(7003));
}

#[test]
fn reopening_clears_the_win_and_a_second_win_begins_anew() {
    let won = [status(10, 2, "Done"), status(12, 17, "Won")];
    let row = lead(&won);
    assert_eq!((row.state, row.closed_won_at), (State::Won, Some(minutes(10))));
    let reopened = [&won[..], &[status(20, 6, "Later")]].concat();
    assert_eq!((lead(&reopened).state, lead(&reopened).closed_won_at), (State::Open, None));
    let again = [&reopened[..], &[status(30, 2, "Won")]].concat();
    assert_eq!(lead(&again).closed_won_at, Some(minutes(30)));
    let lost = lead(&[&again[..], &[status(40, 3, "x")]].concat());
    assert_eq!(
        (lost.state, lost.closed_won_at, lost.closed_lost_at),
        (State::Lost, None, Some(minutes(40)))
    );
}

#[test]
fn a_label_is_what_its_id_says_and_its_text_only_where_the_id_says_nothing() {
    assert_eq!(lead(&[status(1, 99, "Won")]).state, State::Won);
    assert_eq!(lead(&[status(1, 3, "Won")]).state, State::Lost);
    let empty = lead(&[
        status(1, 2, "Won"),
        change("status", 2, json!({"label": {"index": 5, "text": null}})),
    ]);
    assert_eq!((empty.state, empty.status_id, empty.status_label), (State::Open, None, None));
}

#[test]
fn a_win_belongs_to_the_owner_of_its_moment_or_else_to_the_next() {
    let closer = |events: &[Value]| lead(events).closed_by_user_id;
    assert_eq!(closer(&[owner(1, 7001), status(2, 2, "Won"), owner(3, 7002)]), Some(7001));
    assert_eq!(closer(&[status(2, 2, "Won"), owner(2, 7003)]), Some(7003));
    let cleared = change("person", 1, json!([]));
    let events = [
        owner(0, 7009),
        cleared,
        status(2, 2, "Won"),
        change("person", 3, json!({})),
        owner(4, 7002),
    ];
    assert_eq!(closer(&events), Some(7002));
    assert_eq!(closer(&[status(2, 2, "Won")]), None);
    assert_eq!(closer(&[owner(1, 7001)]), None);
}

#[test]
fn only_a_human_touches_and_a_creation_is_no_touch() {
    let create = json!({
        "type": "create_pulse", "boardId": 9001, "pulseId": 42, "userId": 7001, "pulseName": "Dana",
        "triggerTime": "2026-03-02T10:00:00Z", "columnValues": {"status": {"label": {"index": 1, "text": "Contacted"}}}
    });
    assert_eq!(lead(from_ref(&create)).first_touch_at, None);
    assert_eq!(lead(from_ref(&create)).last_activity_at, Some(TEN));
    assert_eq!(lead(from_ref(&create)).status_id, Some(1));
    let mut by_automation = status(1, 1, "Contacted");
    by_automation["userId"] = json!(-4);
    assert_eq!(lead(&[create.clone(), by_automation]).first_touch_at, None);
    assert_eq!(lead(&[create.clone(), status(1, 6, "Later")]).first_touch_at, None);
    assert_eq!(
        lead(&[create.clone(), change("date", 3, json!({"date": null}))]).first_touch_at,
        None
    );
    let call = change("date", 4, json!({"date": "2026-03-05"}));
    let note = json!({"type": "create_update", "boardId": 9001, "pulseId": 42, "userId": "7001",
        "triggerTime": "2026-03-02T10:03:00Z"});
    assert_eq!(lead(&[create.clone(), call.clone()]).first_touch_at, Some(minutes(4)));
    assert_eq!(lead(&[call, create, note]).first_touch_at, Some(minutes(3)));
}

#[test]
fn entry_is_what_the_api_says_or_the_creation_or_the_first_event() {
    let seen = status(-5, 1, "Contacted");
    let create = json!({"type": "create_pulse", "boardId": 9001, "pulseId": 42, "triggerTime": "2026-03-02T10:00:00Z"});
    let snapshot = json!({
        "type": "item_snapshot", "boardId": 9001, "id": "42", "name": "Imported", "state": "archived",
        "created_at": "2026-02-01T00:00:00Z", "updated_at": "2026-03-02T11:00:00Z", "group": {"id": "g"},
        "column_values": [
            {"id": "status", "index": 2, "label": "Won", "updated_at": "2026-03-02T09:00:00Z"},
            {"id": "numbers", "value": "\"12500.5\"", "text": "12500.5"},
            {"id": "person", "persons_and_teams": [{"id": "7002", "kind": "person"}]}]
    });
    let entered = |events: &[Value]| (lead(events).entered_at, lead(events).entered_source);
    assert_eq!(entered(from_ref(&seen)), (minutes(-5), EnteredSource::FirstSeen));
    assert_eq!(entered(&[seen.clone(), create.clone()]), (TEN, EnteredSource::Created));
    let all = [seen, create, snapshot];
    assert_eq!(entered(&all), (at("2026-02-01T00:00:00Z"), EnteredSource::Api));
    let row = lead(&all);
    // The snapshot's status is older than the change at 09:55; its other fields are of 11:00.
    assert_eq!((row.status_id, row.state), (Some(1), State::Open));
    assert_eq!((row.name.as_deref(), row.group_id.as_deref()), (Some("Imported"), Some("g")));
    assert_eq!(row.deal_amount, Some("12500.5".parse().unwrap()));
    assert_eq!((row.assigned_user_id, row.assigned_at), (Some(7002), Some(minutes(60))));
    assert_eq!(
        (row.lifecycle, row.last_event_at, row.last_seq),
        (Lifecycle::Archived, minutes(60), 3)
    );
    assert_eq!(row.last_activity_at, Some(minutes(-5)));
}

#[test]
fn subitems_unmapped_boards_and_unknown_types_make_no_row() {
    let mut subitem = status(1, 1, "Contacted");
    subitem["parentItemId"] = json!("41");
    let mut unmapped = status(1, 1, "Contacted");
    unmapped["boardId"] = json!(9777);
    let mut spelled = status(1, 1, "Contacted");
    spelled["type"] = json!("change_subitem_column_value");
    let mut unknown = status(1, 1, "Contacted");
    unknown["type"] = json!("item_starred");
    let arrivals: Vec<Arrival> = (1u64..)
        .zip([subitem, unmapped, spelled, unknown])
        .map(|(seq, e)| arrival(seq, &e))
        .collect();
    assert!(World::of(&arrivals, &Rules::default()).leads.is_empty());
}

#[test]
fn a_second_delivery_of_an_event_is_nothing() {
    let first = status(1, 1, "Contacted");
    let mut retry = first.clone();
    retry["changedAt"] = json!(TEN / SECOND + 999);
    let row = lead(&[first, retry]);
    assert_eq!((row.last_event_at, row.last_seq), (minutes(1), 1));
}

#[test]
fn amounts_are_exact_or_null() {
    let amount =
        |value: Value| lead(&[change("numbers", 1, json!({ "value": value }))]).deal_amount;
    let exact: Value = serde_json::from_str("9007199254740993.01").unwrap();
    assert_eq!(amount(exact), Some("9007199254740993.01".parse().unwrap()));
    assert_eq!(amount(json!(" 0.30 ")), Some("0.3".parse().unwrap()));
    for nothing in [json!("1,250"), json!(""), Value::Null, json!("1".repeat(29)), json!([1])] {
        assert_eq!(amount(nothing.clone()), None, "{nothing}");
    }
}

fn won_lead(
    item: i64,
    entered: Micros,
    touched: Option<Micros>,
    won: Option<Micros>,
    amount: i64,
) -> Lead {
    Lead {
        board_id: 9001,
        item_id: item,
        name: None,
        group_id: None,
        status_id: None,
        status_label: None,
        assigned_user_id: Some(7001),
        assigned_at: Some(entered),
        deal_amount: Some(Decimal::from(amount)),
        industry: (item % 2 == 0).then(|| "Finance".into()),
        next_call_date: None,
        entered_at: entered,
        entered_source: EnteredSource::Created,
        first_touch_at: touched,
        last_activity_at: touched,
        state: if won.is_some() { State::Won } else { State::Open },
        closed_won_at: won,
        closed_lost_at: None,
        closed_by_user_id: won.map(|_| 7001),
        lifecycle: Lifecycle::Active,
        last_event_at: entered,
        last_seq: 1,
    }
}

#[test]
fn an_agents_week_by_hand() {
    let now = TEN;
    let week = now - 7 * DAY;
    let leads = [
        // On the open edge of the window: not in it. Won within it, though, and for nothing.
        won_lead(1, week, Some(week), Some(now - HOUR), 0),
        won_lead(2, week + 1, Some(week + 1 + 10 * SECOND), Some(now - 72 * HOUR), 300),
        won_lead(3, now, Some(now + 5 * SECOND), None, 900),
        won_lead(4, now - DAY, Some(now - 2 * DAY), Some(now), 100),
        Lead { lifecycle: Lifecycle::Deleted, ..won_lead(5, now - DAY, None, Some(now), 7) },
    ];
    let leads: Vec<&Lead> = leads.iter().collect();
    let rules = Rules { boards: vec![Board::usual(9001)], hot_min_deals: 2, ..Rules::default() };
    let week = AgentMetrics::of(&leads, &rules, 7001, 7, now);
    assert_eq!((week.assigned_count, week.touched_count, week.cohort_won_count), (3, 2, 2));
    assert_eq!((week.conversion_rate, week.closed_won_count), (Some(2.0 / 3.0), 3));
    assert_eq!(week.period_conversion_rate, Some(1.0));
    assert_eq!((week.deals_amount_sum, week.avg_deal_size), (400.into(), Some(200.into())));
    // Responses of 5 and 10 seconds; the one that answered before it entered counts not.
    assert_eq!(week.median_response, Median { n: 2, twice_micros: Some(15 * SECOND) });
    assert_eq!(week.median_response.seconds(), Some("7.5".parse().unwrap()));
    // Closing took 7 days − 1 h, 4 days − 1 µs, 1 day.
    assert_eq!(week.median_time_to_close, Median { n: 3, twice_micros: Some(2 * (4 * DAY - 1)) });
    // 72 hours ago exactly is outside.
    assert_eq!((week.hot_deals_count, week.is_hot), (2, true));
    assert_eq!((week.last_win_at, week.last_activity_at), (Some(now), Some(now + 5 * SECOND)));
    assert_eq!(week.active_leads, 1);
    let finance = &week.industries["finance"];
    assert_eq!((finance.assigned, finance.cohort_won, finance.closed_won), (2, 2, 2));
    assert_eq!(finance.amount_sum, 400.into());
    assert_eq!(week.industries["unknown"].closed_won, 1);

    let nobody = AgentMetrics::of(&leads, &rules, 7002, 7, now);
    assert_eq!((nobody.conversion_rate, nobody.avg_deal_size), (None, None));
    assert_eq!(nobody.median_response, Median { n: 0, twice_micros: None });
}

#[test]
fn an_orgs_figures_need_an_owner_for_the_cohort_only() {
    let now = TEN;
    let unowned = Lead {
        assigned_user_id: None,
        closed_by_user_id: None,
        ..won_lead(2, now - DAY, None, Some(now - HOUR), 50)
    };
    let earlier = won_lead(4, now - 8 * DAY, None, None, 0);
    let leads = [&unowned, &earlier];
    let week = Window::of_days(7, now);
    let kpis = Kpis::of(&leads, week);
    assert_eq!(
        (kpis.assigned_count, kpis.closed_won_count, kpis.deals_amount_sum),
        (0, 1, 50.into())
    );
    assert_eq!(Kpis::of(&leads, week.previous()).assigned_count, 1);
    assert_eq!(Kpis::of_industry(&leads, "finance", week).closed_won_count, 1);
    assert_eq!(Kpis::of_board(&leads, 9002, week).closed_won_count, 0);
}

#[test]
fn a_user_shows_by_its_last_name_and_unknown_ones_by_their_id() {
    let user = |name: Value| json!({"type": "user_snapshot", "user_id": "7001", "name": name});
    let arrivals = [
        Arrival { seq: 2, received_at: TEN + 1, event: user(json!("Dana")).to_string() },
        Arrival { seq: 1, received_at: TEN, event: user(json!("Dan")).to_string() },
    ];
    let world = World::of(&arrivals, &Rules::default());
    assert_eq!((world.name_of(7001), world.name_of(7002)), ("Dana".into(), "7002".into()));
}

#[test]
fn zero_is_a_label_id_too() {
    let board = Board { won: vec![Label::Id(0)], ..Board::usual(9001) };
    let rules = Rules { boards: vec![board], ..Rules::default() };
    let world = World::of(&[arrival(1, &status(1, 0, "x"))], &rules);
    assert_eq!(world.leads[&(9001, 42)].state, State::Won);
}
