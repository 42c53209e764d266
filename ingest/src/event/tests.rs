use axum::http::HeaderMap;
use leadpulse_service::config::Config;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    source::Sources,
    verify::{Proof, Unverified},
};

const RECEIVED: &str = "2026-03-02T10:00:05.1234567Z";

fn at(text: &str) -> DateTime<Utc> {
    instant::parse(text).unwrap()
}

/// A body that came through the door, the only way there is.
fn verified(body: &[u8]) -> Verified {
    let config = "[[orgs]]\nid='demo'\n[[orgs.sources]]\nkey='crm'\nverify='token'\n\
                  secrets=[{label='x',secret='env:TOKEN'}]";
    let config = Config::parse("leadpulse.toml", config, &|_| None).unwrap();
    let source =
        Sources::resolve(&config, &|_| Some("the-token-of-the-source".into())).unwrap().of("crm").0;
    let proof = Proof::new(HeaderMap::new(), Some("the-token-of-the-source"));
    let body = Bytes::copy_from_slice(body);
    Unverified { source, body, received_at: at(RECEIVED), proof: &proof }.verify().unwrap()
}

fn envelope_of(event: &Value) -> Envelope {
    envelope_of_body(json!({ "event": event }).to_string().as_bytes())
}

fn envelope_of_body(body: &[u8]) -> Envelope {
    let record = Record::of(&verified(body)).unwrap();
    serde_json::from_slice(record.payload()).unwrap()
}

fn refusal(body: &str) -> Refusal {
    Record::of(&verified(body.as_bytes())).unwrap_err()
}

#[test]
fn a_column_change_is_dated_by_its_changed_at_cut_to_microseconds() {
    let body = br#"{"event":{"type":"update_column_value","triggerTime":"2026-03-02T10:00:01.044Z","subscriptionId":502,"boardId":9001,"pulseId":42,"changedAt":1772445600.6281069,"triggerUuid":"11"}}"#;
    let record = Record::of(&verified(body)).unwrap();
    let envelope: Envelope = serde_json::from_slice(record.payload()).unwrap();
    assert_eq!(envelope.occurred_at, at("2026-03-02T10:00:00.628106Z"));
    assert_eq!(envelope.received_at, at("2026-03-02T10:00:05.123456Z"));
    assert_eq!((envelope.board_id, envelope.item_id), (Some(9001), Some(42)));
    assert_eq!(record.message_id(), "demo:502:11");
    assert_eq!(record.subject(), "leadpulse.events.demo.9001.update_column_value");
    assert_eq!(envelope.source, "crm");
}

#[test]
fn a_creation_is_dated_by_the_earliest_time_in_it() {
    let created = |event_type: &str| {
        envelope_of(&json!({
            "type": event_type, "triggerTime": "2026-03-02T09:15:00.630Z",
            "columnValues": {
                "email": { "changed_at": "2026-03-02T09:14:59.224Z" },
                "late": { "changed_at": "2026-03-02T09:20:00Z" },
                "odd": { "changed_at": "soon" }, "none": {}, "text": "x", "null": null,
            },
        }))
        .occurred_at
    };
    assert_eq!(created("create_pulse"), at("2026-03-02T09:14:59.224Z"));
    assert_eq!(created("create_item"), at("2026-03-02T09:14:59.224Z"));
    assert_eq!(created("update_name"), at("2026-03-02T09:15:00.630Z"));
}

#[test]
fn a_snapshot_is_dated_by_its_item_and_named_by_its_id() {
    let snapshot = envelope_of(&json!({
        "type": "item_snapshot", "board_id": "9001", "id": "42",
        "updated_at": "2026-03-01T08:00:00Z", "triggerTime": "2026-03-02T10:00:00Z",
    }));
    assert_eq!(snapshot.occurred_at, at("2026-03-01T08:00:00Z"));
    assert_eq!((snapshot.board_id, snapshot.item_id), (Some(9001), Some(42)));
    let other = envelope_of(&json!({ "type": "create_column", "boardId": 1, "id": "42" }));
    assert_eq!(other.item_id, None);
}

#[test]
fn a_clock_from_the_future_does_not_win() {
    let dated = |time: &str| envelope_of(&json!({ "type": "x", "triggerTime": time })).occurred_at;
    assert_eq!(dated("2026-03-02T10:05:05.123456Z"), at("2026-03-02T10:05:05.123456Z"));
    assert_eq!(dated("2026-03-02T10:05:05.123457Z"), at("2026-03-02T10:00:05.123456Z"));
    assert_eq!(dated("no time"), at("2026-03-02T10:00:05.123456Z"));
}

#[test]
fn without_its_ids_an_event_is_known_by_its_content_and_a_retry_is_the_same_event() {
    let id = |event: Value| envelope_of(&event).event_id;
    let first = id(json!({ "type": "x", "boardId": 1, "triggerTime": "a", "isRetry": false }));
    let retry = id(json!({ "isRetry": true, "triggerTime": "b", "boardId": 1, "type": "x" }));
    assert_eq!(first, retry);
    assert_eq!(first.len(), 64);
    assert_ne!(first, id(json!({ "type": "x", "boardId": 2 })));
    assert_eq!(id(json!({ "type": "x", "subscriptionId": "7", "triggerUuid": "u" })), "7:u");
    for (subscription, uuid) in [
        (json!(null), json!("u")),
        (json!(7), json!("")),
        (json!(7), json!("a\r\nNats-Msg-Id: b")),
        (json!(7), json!("u".repeat(10_000))),
        (json!(7), json!(["u"])),
        (json!({}), json!("u")),
    ] {
        let event = json!({ "type": "x", "subscriptionId": subscription, "triggerUuid": uuid });
        assert_eq!(id(event).len(), 64);
    }
}

#[test]
fn odd_fields_do_not_keep_an_event_from_being_stored() {
    let odd = envelope_of_body(
        br#"{"event":{"type":"old","type":"brand \u006eew > * kind","boardId":"-9223372036854775808","pulseId":99999999999999999999999,"itemId":" 7 ","userId":-6,"changedAt":[],"triggerTime":5,"columnValues":"x","$serde_json::private::Number":1,"half":"\ud83d"}}"#,
    );
    assert_eq!(odd.kind, Kind::Other("brand new > * kind".into()));
    assert_eq!((odd.board_id, odd.item_id), (Some(i64::MIN), Some(7)));
    assert_eq!(odd.subject(), "leadpulse.events.demo.-9223372036854775808.other");
    assert!(odd.event.get().contains(r#""half":"\ufffd""#));
    let bytes = envelope_of_body(b"{\"event\":{\"type\":\"x\",\"pulseName\":\"\xff\xfe\"}}");
    assert_eq!(bytes.event.get(), "{\"type\":\"x\",\"pulseName\":\"\u{fffd}\u{fffd}\"}");
}

#[test]
fn what_is_no_event_is_refused() {
    for body in
        [r#"{"event":{}}"#, r#"{"event":{"type":7}}"#, r#"{"event":{"type":""}}"#, "[]", "{}"]
    {
        assert!(matches!(refusal(body), Refusal::NotAnEvent(_)), "{body}");
    }
    assert_eq!(refusal("{"), Refusal::NotJson);
    let deep = format!(r#"{{"event":{{"type":"x","v":{}1{}}}}}"#, "[".repeat(100), "]".repeat(100));
    assert_eq!(refusal(&deep), Refusal::TooDeep);
}

/// The fuzzer's seeds, and whatever it has found: a record or a refusal, never a panic.
#[test]
fn the_corpus_of_the_fuzzer_is_read_or_refused() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/event");
    let (mut read, mut refused) = (0, 0);
    for file in std::fs::read_dir(folder).unwrap() {
        let body = std::fs::read(file.unwrap().path()).unwrap();
        match Record::of(&verified(&body)) {
            Ok(record) => {
                let envelope: Envelope = serde_json::from_slice(record.payload()).unwrap();
                assert_eq!(envelope.event_id, record.message_id()["demo:".len()..]);
                read += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(read >= 15 && refused >= 4, "{read} read, {refused} refused");
}

fn any_event() -> impl Strategy<Value = Value> {
    let id = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<i64>().prop_map(|id| Value::from(id.to_string())),
        "\\PC{0,8}".prop_map(Value::from),
        Just(Value::Null),
        Just(json!([1])),
    ];
    let time = prop_oneof![
        (0_i64..4_000_000_000, 0_u32..1_000_000_000)
            .prop_map(|(s, ns)| json!(DateTime::from_timestamp(s, ns).unwrap().to_rfc3339())),
        (any::<u32>(), any::<u32>())
            .prop_map(|(s, f)| serde_json::from_str(&format!("{s}.{f}")).unwrap()),
        "\\PC{0,12}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "subscriptionId",
        "triggerUuid",
        "boardId",
        "board_id",
        "pulseId",
        "itemId",
        "id",
        "userId",
    ]);
    let time_key = prop::sample::select(vec!["triggerTime", "changedAt", "updated_at"]);
    let kind = prop::sample::select(vec![
        "create_pulse",
        "create_item",
        "update_column_value",
        "item_snapshot",
        "unheard_of",
    ]);
    (
        kind,
        prop::collection::btree_map(key, id, 0..6),
        prop::collection::btree_map(time_key, time, 0..3),
        prop::collection::btree_map("\\PC{0,5}", "\\PC{0,9}", 0..4),
    )
        .prop_map(|(kind, ids, times, other)| {
            let mut event = json!({ "type": kind });
            let fields = event.as_object_mut().unwrap();
            fields.extend(ids.into_iter().map(|(key, value)| (key.to_owned(), value)));
            fields.extend(times.into_iter().map(|(key, value)| (key.to_owned(), value)));
            for (key, value) in other {
                fields.entry(key).or_insert(json!(value));
            }
            event
        })
}

proptest! {
    #[test]
    fn every_event_is_stored_and_its_text_is_kept(event in any_event()) {
        let text = serde_json::to_string_pretty(&event).unwrap();
        let envelope = envelope_of_body(format!(" {{ \"event\" : {text} }} ").as_bytes());
        prop_assert_eq!(envelope.event.get(), text);
        prop_assert!(envelope.occurred_at <= instant::latest_believed(at(RECEIVED)));
        prop_assert!(envelope.event_id.bytes().all(|byte| byte.is_ascii_graphic()));
    }

    #[test]
    fn white_space_and_the_attempt_do_not_change_who_an_event_is(event in any_event(), retry: bool) {
        let mut again = event.clone();
        again["isRetry"] = json!(retry);
        again["triggerTime"] = json!("2026-03-02T10:00:00Z");
        let pretty = serde_json::to_string_pretty(&json!({ "event": again })).unwrap();
        prop_assert_eq!(
            envelope_of_body(pretty.as_bytes()).event_id,
            envelope_of(&event).event_id
        );
    }
}
