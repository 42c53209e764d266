//! §4: the users of the org, as their snapshots tell.

use std::collections::BTreeMap;

use super::{
    event::{Event, Kind},
    value::{integer, text},
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub user_id: i64,
    pub name: Option<String>,
    pub email: Option<String>,
    pub kind: Option<String>,
    pub status: Option<String>,
}

/// The last snapshot of each user.
pub(super) fn users(events: &[Event]) -> BTreeMap<i64, User> {
    let mut snapshots: Vec<&Event> =
        events.iter().filter(|event| event.kind == Kind::UserSnapshot).collect();
    snapshots.sort_by_key(|event| event.order());
    let mut users = BTreeMap::new();
    for snapshot in snapshots {
        let json = &snapshot.json;
        let Some(user_id) = integer(&json["user_id"]) else { continue };
        let user = User {
            user_id,
            name: text(&json["name"]),
            email: text(&json["email"]),
            kind: text(&json["kind"]),
            status: text(&json["status"]),
        };
        users.insert(user_id, user);
    }
    users
}
