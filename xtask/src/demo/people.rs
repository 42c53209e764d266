//! Who sells, and who buys.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

/// One of the team. What differs between them is what a dashboard is to show.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) id: i64,
    pub(super) name: &'static str,
    /// Of the leads that come to a decision, the part that is won.
    pub(super) skill: f64,
    /// Median minutes until a new lead is touched.
    pub(super) response_minutes: f64,
    /// Median hours between two steps with a lead.
    pub(super) pace_hours: f64,
    /// How many of the leads come here, relative to the others.
    pub(super) share: u32,
    /// Has done nothing in the last so many days.
    pub(super) away_days: i64,
}

const NAMES: [&str; 25] = [
    "דנה לוי",
    "Daniel Roth",
    "נועה כהן",
    "Maya Stein",
    "יואב מזרחי",
    "Omer Katz",
    "תמר פרידמן",
    "Sarah Klein",
    "איתי ביטון",
    "Adam Novak",
    "שירה אברהם",
    "Liam O'Connor",
    "רון גולן",
    "Yael Bar-On",
    "אורית שפירא",
    "Ben Azulay",
    "עדי רוזן",
    "Emma Fischer",
    "גיא אלון",
    "Noam Peretz",
    "מיכל דיין",
    "Elena Petrova",
    "אסף חדד",
    "Talia Weiss",
    "עומר נחום",
];

/// The team; figures spread over a plausible range without a second random source.
pub(super) fn team() -> Vec<Agent> {
    (0..).zip(NAMES).map(|(index, name)| agent(index, name)).collect()
}

fn agent(index: u32, name: &'static str) -> Agent {
    let spread = |step: u32| f64::from(index * step % 25) / 24.0;
    Agent {
        id: 7001 + i64::from(index),
        name,
        skill: 0.22 + 0.40 * spread(7),
        response_minutes: 6.0 * 40_f64.powf(spread(11)),
        pace_hours: 6.0 + 26.0 * spread(3),
        share: 2 + index * 13 % 7,
        away_days: match index {
            4 => 5,
            13 => 12,
            22 => 21,
            _ => 0,
        },
    }
}

/// A lead's name: a person, and sometimes where they work.
pub(super) fn lead_name(rng: &mut StdRng) -> String {
    const HEBREW: [&[&str]; 2] = [
        &["אבי", "רחל", "משה", "יעל", "דוד", "מיכל", "יוסי", "נעמה", "חיים", "ליאת", "אלון", "הדס"],
        &["כהן", "לוי", "מזרחי", "פרץ", "ביטון", "דהן", "אברהם", "פרידמן", "כץ", "שפירא", "בן-דוד"],
    ];
    const LATIN: [&[&str]; 2] = [
        &[
            "Anna", "David", "Julia", "Mark", "Sofia", "Peter", "Nina", "Tom", "Laura", "Alex",
            "Rosa",
        ],
        &[
            "Cohen", "Miller", "García", "Schmidt", "Rossi", "Kowalski", "Dubois", "Haddad",
            "Larsen",
        ],
    ];
    const COMPANIES: [&str; 10] = [
        "Acme",
        "Globex",
        "Initech",
        "תעשיות הגליל",
        "Umbrella",
        "Hooli",
        "אור-טק",
        "Vandelay",
        "Stark",
        "מגדל הצפון",
    ];
    let names = if rng.random_bool(0.55) { HEBREW } else { LATIN };
    let [first, last] = names.map(|list| pick(rng, list));
    match rng.random_bool(0.3) {
        true => format!("{first} {last} ({})", pick(rng, &COMPANIES)),
        false => format!("{first} {last}"),
    }
}

pub(super) fn pick<'a>(rng: &mut StdRng, list: &[&'a str]) -> &'a str {
    list.choose(rng).copied().unwrap_or_default()
}
