//! What happens on a board: every type of event that monday.com sends, in both of its spellings.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{
    AGENTS, DAY, HOUR, MINUTE, UNMAPPED_BOARD,
    oddity::oddity,
    payload::{Webhook, iso_millis, unix_seconds},
    value::{Role, Spelled, role, text, value},
};
use crate::{
    naive::Micros,
    rules::{Board, Rules},
};

type Fields = Vec<(String, Value)>;

/// One field of an event.
fn field(key: &str, value: impl Into<Value>) -> (String, Value) {
    (key.to_owned(), value.into())
}

/// What is the same for every type of event.
#[derive(Debug, Clone)]
struct Circumstances {
    board: Board,
    item: i64,
    ids_as_text: bool,
    at: Micros,
    user: i64,
    parent: Option<i64>,
    decimals: usize,
}

/// A webhook about one of the items.
pub(super) fn webhook(rules: &Rules, items: i64, now: Micros) -> BoxedStrategy<Webhook> {
    let mut boards = rules.boards.clone();
    boards.push(Board::usual(UNMAPPED_BOARD));
    let identity =
        (500..503u32, option::weighted(0.85, any::<u128>()), option::weighted(0.95, 0..2i64));
    (circumstances(boards, items, now), identity, 0..20usize, oddity())
        .prop_flat_map(|(circumstances, (subscription, uuid, delay), rotation, oddity)| {
            let at = circumstances.at;
            deed(circumstances).prop_map(move |mut fields| {
                fields.push(field("app", "monday"));
                fields.push(field("isRetry", false));
                fields.push(field("originalTriggerUuid", Value::Null));
                fields.push(field("subscriptionId", subscription));
                if let Some(uuid) = uuid {
                    fields.push(field("triggerUuid", format!("{uuid:032x}")));
                }
                // A snapshot is no delivery of monday.com's: its times are its own.
                let snapshot = fields.iter().any(|(key, value)| {
                    key == "type" && value.as_str().is_some_and(|text| text.ends_with("_snapshot"))
                });
                let trigger_time = delay.filter(|_| !snapshot).map(|delay| at + delay * 1_044_000);
                Webhook { fields, trigger_time, rotation }.with(oddity)
            })
        })
        .boxed()
}

fn circumstances(
    boards: Vec<Board>,
    items: i64,
    now: Micros,
) -> impl Strategy<Value = Circumstances> {
    let board = select(boards);
    // The last item has an id that no float can hold.
    let item = (1..=items).prop_map(move |n| if n == items { 9_007_199_254_740_993 } else { n });
    let user = prop_oneof![
        8 => select(AGENTS.to_vec()),
        1 => Just(-6),
        1 => Just(-4),
    ];
    let parent = option::weighted(0.05, Just(42));
    (board, item, prop::bool::weighted(0.1), instant(now), user, parent, 0..8usize).prop_map(
        |(board, item, ids_as_text, at, user, parent, decimals)| Circumstances {
            board,
            item,
            ids_as_text,
            at,
            user,
            parent,
            decimals,
        },
    )
}

/// Mostly the last hundred days; often the same instant twice; sometimes a clock from the future.
fn instant(now: Micros) -> impl Strategy<Value = Micros> {
    let long_ago = (0..100 * DAY).prop_map(move |before| now - before);
    let lately = (0..4 * DAY).prop_map(move |before| now - before);
    let on_the_hour = (1..30i64).prop_map(move |hours| (now / HOUR) * HOUR - hours * HOUR);
    let soon = (0..3 * MINUTE).prop_map(move |after| now + after);
    let far = (30 * MINUTE..DAY).prop_map(move |after| now + after);
    prop_oneof![8 => long_ago, 3 => lately, 4 => on_the_hour, 1 => soon, 1 => far]
}

fn deed(c: Circumstances) -> BoxedStrategy<Fields> {
    prop_oneof![
        4 => creation(c.clone()),
        14 => change(c.clone()),
        1 => change_elsewhere(c.clone()),
        1 => renaming(c.clone()),
        2 => lifecycle(c.clone()),
        1 => moving(c.clone()),
        2 => update(c.clone()),
        1 => not_a_lead(c.clone()),
        1 => item_snapshot(c.clone()),
        1 => user_snapshot(),
    ]
    .boxed()
}

/// The fields of an event about an item, under the name that the type gives the item's id.
fn about(c: &Circumstances, id_key: &str, event_type: &str) -> Fields {
    let id = |id: i64| if c.ids_as_text { json!(id.to_string()) } else { json!(id) };
    let mut fields = vec![
        field("type", event_type),
        field("boardId", id(c.board.id)),
        field(id_key, id(c.item)),
        field("userId", id(c.user)),
    ];
    if let Some(parent) = c.parent {
        fields.push(field("parentItemId", parent.to_string()));
        fields.push(field("parentItemBoardId", c.board.id.to_string()));
    }
    fields
}

pub(super) fn column_id(board: &Board, role: Role) -> Option<String> {
    match role {
        Role::Owner => board.owner.clone(),
        Role::Status => board.status.clone(),
        Role::Amount => board.amount.clone(),
        Role::Industry => board.industry.clone(),
        Role::NextCall => board.next_call.clone(),
    }
}

fn role_and_value() -> impl Strategy<Value = (Role, Spelled)> {
    role().prop_flat_map(|role| value(role).prop_map(move |value| (role, value)))
}

fn creation(c: Circumstances) -> BoxedStrategy<Fields> {
    let spelling = select(vec!["create_pulse", "create_pulse", "create_item", "create_subitem"]);
    let columns = vec(role_and_value(), 0..4);
    // A column that nobody mapped, changed a moment before the creation was sent.
    let earlier = option::of(0..5_000_000i64);
    (spelling, columns, earlier, text())
        .prop_map(move |(spelling, columns, earlier, name)| {
            let mut values = serde_json::Map::new();
            for (role, value) in columns {
                if let Some(id) = column_id(&c.board, role) {
                    values.insert(id, without_time(value.webhook));
                }
            }
            if let Some(earlier) = earlier {
                let changed_at = iso_millis(c.at - earlier);
                values.insert(
                    "email1".into(),
                    json!({"email": "x@example.com", "changed_at": changed_at}),
                );
            }
            let mut fields = about(&c, "pulseId", spelling);
            fields.push(field("pulseName", name));
            fields.push(field("groupId", "topics"));
            fields.push(field("columnValues", Value::Object(values)));
            fields
        })
        .boxed()
}

/// A `changed_at` within a creation is one of its times; the fixed one of the samples would always win.
fn without_time(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.remove("changed_at");
    }
    value
}

fn change(c: Circumstances) -> BoxedStrategy<Fields> {
    let spelling = prop_oneof![
        12 => Just("update_column_value"),
        1 => Just("change_column_value"),
        1 => Just("change_status_column_value"),
        1 => Just("change_specific_column_value"),
        1 => Just("change_subitem_column_value"),
    ];
    // Without `changedAt`, or with one that does not parse, `triggerTime` is the next best.
    let changed_at = prop_oneof![8 => Just(0u8), 1 => Just(1), 1 => Just(2)];
    (spelling, role_and_value(), changed_at, option::of(text()))
        .prop_map(move |(spelling, (role, value), changed_at, name)| {
            let mut fields = about(&c, "pulseId", spelling);
            fields.push(field("columnId", column_id(&c.board, role).unwrap_or_default()));
            fields.push(field("value", value.webhook));
            fields.push(field("previousValue", json!({})));
            fields.push(field("groupId", if c.decimals > 3 { "topics" } else { "group_1" }));
            if let Some(name) = name {
                fields.push(field("pulseName", name));
            }
            match changed_at {
                0 => fields.push(field("changedAt", unix_seconds(c.at, c.decimals))),
                1 => fields.push(field("changedAt", "not a time")),
                _ => {}
            }
            fields
        })
        .boxed()
}

/// A column that is not mapped, such as the subitems of a parent.
fn change_elsewhere(c: Circumstances) -> BoxedStrategy<Fields> {
    let mut fields = about(&c, "pulseId", "update_column_value");
    fields.push(field("columnId", "subtasks"));
    fields.push(field("columnType", "subtasks"));
    fields.push(field(
        "value",
        json!({"linkedPulseIds": [{"linkedPulseId": 9}], "changed_at": "2025-02-04 19:20:54 +0000"}),
    ));
    fields.push(field("changedAt", unix_seconds(c.at, c.decimals)));
    Just(fields).boxed()
}

fn renaming(c: Circumstances) -> BoxedStrategy<Fields> {
    let spelling = select(vec!["update_name", "change_name", "change_subitem_name"]);
    (spelling, prop_oneof![6 => text(), 1 => Just(String::new()), 1 => Just("\u{0}".to_owned())])
        .prop_map(move |(spelling, name)| {
            let mut fields = about(&c, "pulseId", spelling);
            fields.push(field("groupId", "topics"));
            fields.push(field("pulseName", "as it was called"));
            fields.push(field("value", json!({"name": name})));
            fields.push(field("previousValue", json!({"name": "before"})));
            fields
        })
        .boxed()
}

fn lifecycle(c: Circumstances) -> BoxedStrategy<Fields> {
    let spelling = select(vec![
        "archive_pulse",
        "item_archived",
        "subitem_archived",
        "delete_pulse",
        "item_deleted",
        "subitem_deleted",
        "restore_pulse",
        "restore_pulse",
        "item_restored",
    ]);
    (spelling, text())
        .prop_map(move |(spelling, name)| {
            let mut fields = about(&c, "itemId", spelling);
            // Here the parent is a number, and the subitem has both ids.
            if let Some(parent) = c.parent {
                fields.retain(|(key, _)| !key.starts_with("parent"));
                fields.push(field("parentItemId", parent));
                fields.push(field("parentBoardId", c.board.id));
                fields.push(field("pulseId", c.item));
            }
            fields.push(field("itemName", name));
            fields
        })
        .boxed()
}

fn moving(c: Circumstances) -> BoxedStrategy<Fields> {
    let spelling = select(vec![
        "move_pulse_into_group",
        "item_moved_to_any_group",
        "item_moved_to_specific_group",
        "move_pulse_into_board",
    ]);
    (spelling, select(vec!["won_group", "lost_group", "קבוצה"]))
        .prop_map(move |(spelling, group)| {
            let mut fields = about(&c, "pulseId", spelling);
            fields.push(field("sourceGroupId", "topics"));
            fields.push(field("groupId", "topics"));
            fields.push(field("destGroupId", group));
            fields.push(field(
                "destGroup",
                json!({"id": group, "title": "Won", "is_top_group": false}),
            ));
            fields
        })
        .boxed()
}

fn update(c: Circumstances) -> BoxedStrategy<Fields> {
    let spelling = select(vec![
        "create_update",
        "create_update",
        "create_update",
        "edit_update",
        "delete_update",
        "create_subitem_update",
    ]);
    (spelling, text())
        .prop_map(move |(spelling, body)| {
            let mut fields = about(&c, "pulseId", spelling);
            fields.push(field("body", format!("<p>{body}</p>")));
            fields.push(field("textBody", body));
            fields.push(field("updateId", 388));
            fields.push(field("replyId", Value::Null));
            fields
        })
        .boxed()
}

/// What stays in the stream and touches no lead: columns, moved subitems, types of tomorrow.
fn not_a_lead(c: Circumstances) -> BoxedStrategy<Fields> {
    select(vec!["create_column", "move_subitem", "item_starred", "a type.of > tomorrow*"])
        .prop_map(move |event_type| {
            let mut fields = about(&c, "pulseId", event_type);
            if event_type == "move_subitem" {
                fields.retain(|(key, _)| key != "boardId" && key != "pulseId");
                fields.push(field("subitem", json!({"id": c.item})));
            }
            if event_type == "create_column" {
                fields.retain(|(key, _)| key != "pulseId");
                fields.push(field("columnId", "numbers9"));
            }
            fields
        })
        .boxed()
}

fn item_snapshot(c: Circumstances) -> BoxedStrategy<Fields> {
    let columns = vec((role_and_value(), option::of(0..20 * DAY)), 0..5);
    let state = select(vec!["active", "active", "active", "archived", "deleted"]);
    (columns, state, text(), option::weighted(0.9, 0..30 * DAY), prop::bool::weighted(0.9))
        .prop_map(move |(columns, state, name, age, updated)| {
            let mut values: Vec<Value> = Vec::new();
            for ((role, value), before) in columns {
                let Some(id) = column_id(&c.board, role) else { continue };
                if values.iter().any(|known| known["id"] == id.as_str()) {
                    continue;
                }
                let mut entry = value.api;
                entry["id"] = json!(id);
                if let Some(before) = before {
                    entry["updated_at"] = json!(iso_millis(c.at - before));
                }
                values.push(entry);
            }
            let mut fields = vec![
                field("type", "item_snapshot"),
                field("boardId", c.board.id),
                field("id", c.item.to_string()),
                field("name", name),
                field("state", state),
                field("group", json!({"id": "imported"})),
                field("column_values", values),
            ];
            if let Some(age) = age {
                fields.push(field("created_at", iso_millis(c.at - age)));
            }
            if updated {
                fields.push(field("updated_at", iso_millis(c.at)));
            }
            fields
        })
        .boxed()
}

fn user_snapshot() -> BoxedStrategy<Fields> {
    (select(AGENTS.to_vec()), text(), any::<bool>())
        .prop_map(|(agent, name, as_text)| {
            let id = if as_text { json!(agent.to_string()) } else { json!(agent) };
            vec![
                field("type", "user_snapshot"),
                field("user_id", id),
                field("name", name),
                field("email", format!("u{agent}@example.com")),
                field("kind", "member"),
                field("status", "active"),
            ]
        })
        .boxed()
}
