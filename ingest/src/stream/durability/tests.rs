use super::*;

fn broken(change: impl Fn(&mut Config), version: &str, sync: Option<DiskSync>) -> Vec<Promise> {
    let asked = leadpulse_nats::streams::events(3).unwrap();
    let mut got = asked.clone();
    change(&mut got);
    let seen = Seen { version, max_payload: 2 << 20, asked: &asked, got: &got, sync };
    findings(&seen).into_iter().filter(|f| f.fault.is_some()).map(|f| f.promise).collect()
}

#[test]
fn what_is_as_asked_breaks_no_promise() {
    assert_eq!(broken(|_| (), "2.14.4", Some(DiskSync::Always)), []);
    assert_eq!(broken(|_| (), "2.10.0-RC.1", None), [Promise::Fsync]);
    let every = Some(DiskSync::Every(Duration::from_secs(120)));
    assert_eq!(broken(|_| (), "2.14.4", every), [Promise::Fsync]);
}

#[test]
fn each_promise_is_broken_by_its_own_setting() {
    let always = Some(DiskSync::Always);
    assert_eq!(broken(|_| (), "2.9.10", always), [Promise::Version]);
    let found = broken(|got| got.duplicate_window = Duration::from_secs(120), "2.14.4", always);
    assert_eq!(found, [Promise::Settings, Promise::Duplicates]);
    let found = broken(|got| got.max_age = Duration::from_secs(1), "2.14.4", always);
    assert_eq!(found, [Promise::Settings, Promise::Discard]);
    let found = broken(|got| got.num_replicas = 1, "2.14.4", always);
    assert_eq!(found, [Promise::Settings, Promise::Replicas]);
    let found = broken(|got| got.persist_mode = Some(PersistenceMode::Async), "2.14.4", always);
    assert_eq!(found, [Promise::Settings, Promise::Persist]);
    let found = broken(|got| got.persist_mode = Some(PersistenceMode::Default), "2.14.4", always);
    assert_eq!(found, []);
    let found = broken(|got| got.compression = None, "2.14.4", always);
    assert_eq!(found, [Promise::Settings]);
    assert_eq!(broken(|_| (), "a fork of ours", always), [Promise::Version]);
}

#[test]
fn a_server_that_takes_no_message_of_the_largest_webhook_breaks_a_promise() {
    let asked = leadpulse_nats::streams::events(1).unwrap();
    let broken = |max_payload| {
        let sync = Some(DiskSync::Always);
        let seen = Seen { version: "2.14.4", max_payload, asked: &asked, got: &asked, sync };
        fault(Promise::Payload, &seen)
    };
    assert_eq!(broken(2 << 20), None);
    let usual = broken(1 << 20).unwrap();
    assert!(usual.contains("1048576") && usual.contains("2097152"), "{usual}");
}

#[test]
fn drift_names_the_setting_and_both_values() {
    let asked = leadpulse_nats::streams::events(1).unwrap();
    let got = Config { max_messages: 10, ..asked.clone() };
    assert_eq!(drift(&asked, &got), ["`max_msgs` is 10 instead of -1"]);
    let sealed = Config { sealed: true, ..asked.clone() };
    assert_eq!(drift(&asked, &sealed), ["`sealed` is true, which nobody asked for"]);
    let noted = HashMap::from([("_nats.ver".to_owned(), "2.14.4".to_owned())]);
    assert_eq!(drift(&asked, &Config { metadata: noted, ..asked.clone() }), [""; 0]);
}
