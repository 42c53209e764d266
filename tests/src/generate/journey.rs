//! A lead as a sales team would have it: created, assigned, contacted, priced, won or lost, in this
//! order. Random events alone seldom make a lead that was answered and won.

use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Value, json};

use super::{
    AGENTS, DAY, HOUR,
    payload::{Webhook, unix_seconds},
    value::{Role, value},
};
use crate::{
    naive::Micros,
    rules::{Board, Label, Rules},
};

/// Deeds in their order; each is some time after the one before.
pub(super) fn journey(rules: &Rules, items: i64, now: Micros) -> BoxedStrategy<Vec<Webhook>> {
    let start = prop_oneof![(0..100 * DAY), (0..9 * DAY)].prop_map(move |before| now - before);
    let pauses = vec(prop_oneof![0..HOUR, 0..2 * DAY, 0..12 * DAY], 5);
    let ending =
        prop_oneof![3 => Just(Ending::Won), 1 => Just(Ending::Lost), 1 => Just(Ending::Open)];
    let people = (select(AGENTS.to_vec()), option::weighted(0.2, select(AGENTS.to_vec())));
    let worth = (value(Role::Amount), value(Role::Industry));
    (select(rules.boards.clone()), 1..=items, start, pauses, ending, people, worth, any::<u64>())
        .prop_map(move |(board, item, start, pauses, ending, (agent, heir), worth, salt)| {
            let mut teller = Teller { board, item: 1000 + item, agent, salt, told: Vec::new() };
            let mut at = start;
            teller.create(at);
            teller.change(Role::Owner, at, owner(agent));
            at += pauses[0];
            teller.touch(at);
            teller.change(Role::Industry, at, worth.1.webhook);
            at += pauses[1];
            teller.change(Role::Amount, at, worth.0.webhook);
            if let Some(heir) = heir {
                at += pauses[2];
                teller.change(Role::Owner, at, owner(heir));
            }
            at += pauses[3];
            teller.end(ending, at);
            // What has not happened yet is not told.
            teller
                .told
                .into_iter()
                .filter(|(at, _)| *at <= now)
                .map(|(_, webhook)| webhook)
                .collect()
        })
        .boxed()
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Won,
    Lost,
    Open,
}

struct Teller {
    board: Board,
    item: i64,
    agent: i64,
    salt: u64,
    told: Vec<(Micros, Webhook)>,
}

fn owner(agent: i64) -> Value {
    json!({"personsAndTeams": [{"id": agent, "kind": "person"}]})
}

impl Teller {
    fn tell(&mut self, at: Micros, event: Value) {
        let Value::Object(fields) = event else { return };
        let uuid = format!("{:016x}{:016x}", self.salt, self.told.len());
        let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
        let common = json!({
            "app": "monday", "boardId": self.board.id, "pulseId": self.item, "userId": self.agent,
            "subscriptionId": 700, "triggerUuid": uuid, "isRetry": false
        });
        fields.extend(common.as_object().cloned().into_iter().flatten());
        self.told.push((at, Webhook { fields, trigger_time: Some(at), rotation: 0 }));
    }

    fn create(&mut self, at: Micros) {
        let name = format!("Lead {}", self.item);
        self.tell(at, json!({"type": "create_pulse", "pulseName": name, "groupId": "topics", "columnValues": {}}));
    }

    fn change(&mut self, role: Role, at: Micros, value: Value) {
        let Some(column) = super::deed::column_id(&self.board, role) else { return };
        let event = json!({
            "type": "update_column_value", "columnId": column, "value": value,
            "changedAt": unix_seconds(at, 7)
        });
        self.tell(at, event);
    }

    fn touch(&mut self, at: Micros) {
        self.tell(at, json!({"type": "create_update", "textBody": "called", "updateId": 388}));
    }

    fn end(&mut self, ending: Ending, at: Micros) {
        let labels = match ending {
            Ending::Won => &self.board.won,
            Ending::Lost => &self.board.lost,
            Ending::Open => return,
        };
        let label = match labels.first() {
            Some(Label::Id(id)) => json!({"label": {"index": id, "text": "done"}}),
            Some(Label::Text(text)) => json!({"label": {"index": 77, "text": text}}),
            None => return,
        };
        self.change(Role::Status, at, label);
    }
}
