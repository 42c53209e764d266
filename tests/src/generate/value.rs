//! Column values: the same value in the two vocabularies, the webhook's and the API's.

use proptest::{option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::AGENTS;

/// What a column is mapped as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Owner,
    Status,
    Amount,
    Industry,
    NextCall,
}

/// A column's value as both vocabularies spell it.
#[derive(Debug, Clone)]
pub(super) struct Spelled {
    pub(super) webhook: Value,
    /// Without `id` and `updated_at`.
    pub(super) api: Value,
}

pub(super) fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        3 => Just(Role::Owner),
        5 => Just(Role::Status),
        2 => Just(Role::Amount),
        1 => Just(Role::Industry),
        1 => Just(Role::NextCall),
    ]
}

pub(super) fn value(role: Role) -> BoxedStrategy<Spelled> {
    let filled = match role {
        Role::Owner => owner().boxed(),
        Role::Status => status().boxed(),
        Role::Amount => amount().boxed(),
        Role::Industry => industry().boxed(),
        Role::NextCall => next_call().boxed(),
    };
    prop_oneof![7 => filled, 1 => empty(role)].boxed()
}

/// Texts of people and deals: Hebrew, emoji, quotes, and what can't be stored.
pub(super) fn text() -> impl Strategy<Value = String> {
    select(vec![
        "Dana Levi",
        "דנה לוי",
        "שָׁלוֹם בע״מ",
        "O'Brien \"& Söhne\" \\ GmbH",
        "🚀 rocket 👩‍💻",
        "nul\u{0}inside",
        "  padded  ",
        "=1+1",
        "Line\nbreak\ttab",
    ])
    .prop_map(str::to_owned)
}

fn empty(role: Role) -> BoxedStrategy<Spelled> {
    let inner = match role {
        Role::Owner => json!({"personsAndTeams": [], "changed_at": "2026-03-02T10:00:01.364Z"}),
        Role::Status => json!({"label": {"index": 5, "text": null, "style": {}, "is_done": false}}),
        Role::Amount => json!({"value": null, "unit": null}),
        Role::Industry => json!({"chosenValues": []}),
        Role::NextCall => json!({"date": null, "time": null}),
    };
    let webhook = select(vec![
        Value::Null,
        json!({}),
        json!([]),
        json!(""),
        json!({"column_settings": {"kind": "x"}}),
        inner,
    ]);
    let api = match role {
        Role::Owner => json!({"persons_and_teams": [], "text": "", "value": null}),
        Role::Status => json!({"index": null, "label": null, "text": null, "value": null}),
        Role::Amount => json!({"text": "", "value": null}),
        Role::Industry => json!({"values": [], "text": null, "value": null}),
        Role::NextCall => json!({"date": "", "text": "", "value": null}),
    };
    webhook.prop_map(move |webhook| Spelled { webhook, api: api.clone() }).boxed()
}

fn owner() -> impl Strategy<Value = Spelled> {
    let team = option::weighted(0.2, Just(json!({"id": 5, "kind": "team"})));
    (select(AGENTS.to_vec()), any::<bool>(), team, 0..4u8).prop_map(|(agent, as_text, team, shape)| {
        let id = if as_text { json!(agent.to_string()) } else { json!(agent) };
        let mut people: Vec<Value> = team.into_iter().collect();
        // Teams alone are nobody; a second person is not the owner.
        if shape > 0 || people.is_empty() {
            people.push(json!({"id": id, "kind": "person"}));
        }
        if shape == 1 {
            people.push(json!({"id": 7999, "kind": "person"}));
        }
        Spelled {
            webhook: json!({"personsAndTeams": people, "changed_at": "2026-03-02T10:00:01.364Z"}),
            api: json!({"persons_and_teams": people, "type": "people", "text": "somebody"}),
        }
    })
}

/// Labels of both usual boards: contacted, won and lost by id and by text, and ones that mean nothing.
fn status() -> impl Strategy<Value = Spelled> {
    let label = prop_oneof![
        3 => Just((1, "Contacted")),
        4 => Just((2, "Won")),
        1 => Just((17, "Won")),
        2 => Just((3, "Lost")),
        1 => Just((4, "Lost")),
        1 => Just((0, "Working on it")),
        1 => Just((8, "בטיפול")),
        1 => Just((9, "נסגר 🎉")),
        2 => Just((6, "Later")),
    ];
    label.prop_map(|(index, text)| Spelled {
        webhook: json!({
            "label": {"index": index, "text": text, "style": {"color": "#00c875"}, "is_done": index == 2},
            "post_id": null
        }),
        api: json!({
            "type": "status", "index": index, "label": text, "text": text,
            "value": json!({"index": index, "post_id": null}).to_string()
        }),
    })
}

fn amount() -> impl Strategy<Value = Spelled> {
    let number = prop_oneof![
        6 => (0..5_000_000u32, 0..5u32).prop_map(|(digits, scale)| {
            rust_decimal::Decimal::new(i64::from(digits), scale).to_string()
        }),
        1 => select(vec![
            "0", "-250.75", "0.1", "0.30", "1250.000", "9007199254740993.01", "12345678901234567890.12",
            "1234567890123456789012345678901234567890",
        ]).prop_map(str::to_owned),
    ];
    let no_number = select(vec!["n/a", "1,250", "$12", "12.5.1", "NaN"]);
    prop_oneof![
        8 => (number, any::<bool>()).prop_map(|(digits, as_text)| {
            let plain: Value = serde_json::from_str(&digits).unwrap_or(Value::Null);
            let value = if as_text { json!(format!(" {digits} ")) } else { plain };
            Spelled {
                webhook: json!({"value": value, "unit": {"symbol": "$"}}),
                api: json!({"type": "numbers", "text": digits, "value": json!(digits).to_string()}),
            }
        }),
        1 => no_number.prop_map(|text| Spelled {
            webhook: json!({"value": text, "unit": null}),
            api: json!({"type": "numbers", "text": text, "value": json!(text).to_string()}),
        }),
    ]
}

fn industry() -> impl Strategy<Value = Spelled> {
    let name = select(vec![
        "Finance",
        "  FINANCE ",
        "finance",
        "Öl & Gas",
        "ÖL & GAS",
        "בריאות",
        "Retail\u{0}",
    ]);
    (name, 0..4u8).prop_map(|(name, shape)| match shape {
        0 => Spelled {
            webhook: json!({"label": {"index": 3, "text": name}}),
            api: json!({"type": "status", "index": 3, "label": name, "text": name}),
        },
        1 => Spelled {
            webhook: json!({"value": name}),
            api: json!({"type": "text", "text": name, "value": json!(name).to_string()}),
        },
        2 => Spelled {
            webhook: json!({"text": name, "changed_at": "2026-03-02T10:00:01.364Z"}),
            api: json!({"type": "long_text", "text": name}),
        },
        _ => Spelled {
            webhook: json!({"chosenValues": [{"id": 8, "name": name}, {"id": 9, "name": "Other"}]}),
            api: json!({
                "type": "dropdown", "text": format!("{name}, Other"),
                "values": [{"id": 8, "label": name}, {"id": 9, "label": "Other"}]
            }),
        },
    })
}

fn next_call() -> impl Strategy<Value = Spelled> {
    let date = select(vec!["2026-03-05", "2024-02-29", "2026-12-31", "2026-02-30", "soon"]);
    date.prop_map(|date| Spelled {
        webhook: json!({"date": date, "icon": null, "time": null, "changed_at": "2026-03-02T10:00:01.364Z"}),
        api: json!({"type": "date", "date": date, "text": date}),
    })
}
