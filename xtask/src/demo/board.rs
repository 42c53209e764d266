//! The two boards of `deploy/demo/leadpulse.toml`, as monday.com's webhooks show them.

use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    New,
    Contacted,
    Proposal,
    Negotiation,
    Won,
    Lost,
}

#[derive(Debug)]
pub(super) struct Board {
    pub(super) id: i64,
    pub(super) owner: &'static str,
    pub(super) status: &'static str,
    pub(super) amount: &'static str,
    pub(super) industry: &'static str,
    pub(super) next_call: &'static str,
    /// Chosen from a list, or typed in.
    industry_is_chosen: bool,
    /// By stage; a label without text is monday.com's empty one.
    labels: [(i64, Option<&'static str>); 6],
}

pub(super) static BOARDS: [Board; 2] = [
    Board {
        id: 9001,
        owner: "person",
        status: "status",
        amount: "numbers",
        industry: "dropdown",
        next_call: "date",
        industry_is_chosen: true,
        labels: [
            (5, None),
            (1, Some("Contacted")),
            (0, Some("Proposal sent")),
            (4, Some("Negotiation")),
            (2, Some("Won")),
            (3, Some("Lost")),
        ],
    },
    Board {
        id: 9002,
        owner: "people_1",
        status: "status_9",
        amount: "numbers_2",
        industry: "text_4",
        next_call: "date4",
        industry_is_chosen: false,
        labels: [
            (5, None),
            (0, Some("נוצר קשר")),
            (1, Some("הצעת מחיר")),
            (2, Some("משא ומתן")),
            (7, Some("נסגר בהצלחה")),
            (8, Some("אבוד")),
        ],
    },
];

pub(super) const INDUSTRIES: [&str; 8] = [
    "Finance",
    "Retail",
    "Health",
    "Software",
    "Construction",
    "Education",
    "Real estate",
    "נדל״ן",
];

impl Board {
    pub(super) fn status_value(&self, stage: Stage) -> Value {
        let (index, text) = self.labels[stage as usize];
        let done = stage == Stage::Won;
        json!({ "label": { "index": index, "text": text, "style": { "color": "#00c875" }, "is_done": done }, "post_id": null })
    }

    /// The column's type and value for an industry.
    pub(super) fn industry_value(&self, industry: usize) -> (&'static str, Value) {
        let name = INDUSTRIES[industry % INDUSTRIES.len()];
        match self.industry_is_chosen {
            true => ("dropdown", json!({ "chosenValues": [{ "id": industry + 1, "name": name }] })),
            false => ("text", json!({ "value": name })),
        }
    }
}
