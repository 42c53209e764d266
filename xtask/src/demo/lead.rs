//! The life of one lead, step by step. The history plays many of them to the end, live traffic goes on
//! with those that are open.

use chrono::{DateTime, TimeDelta, Utc};
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    board::{Board, Stage},
    history::Event,
    payload::{AUTOMATION, Change, FORM, Pen, iso, number},
    people::Agent,
};

#[derive(Debug, Clone)]
pub(super) struct Lead {
    pub(super) board: &'static Board,
    pub(super) item: i64,
    pub(super) name: String,
    pub(super) stage: Stage,
    pub(super) owner: Option<usize>,
    industry: usize,
    amount: Option<String>,
    touched: bool,
    archived: bool,
    /// Nothing will happen to it any more.
    pub(super) done: bool,
}

impl Lead {
    pub(super) fn new(rng: &mut StdRng, board: &'static Board, item: i64, name: String) -> Self {
        Self {
            board,
            item,
            name,
            stage: Stage::New,
            owner: None,
            industry: rng.random_range(0..super::board::INDUSTRIES.len()),
            amount: None,
            touched: false,
            archived: false,
            done: false,
        }
    }

    /// Its first event. Some come with an owner, some get one later.
    pub(super) fn create(
        &mut self,
        rng: &mut StdRng,
        at: DateTime<Utc>,
        team: &[Agent],
        owner: usize,
    ) -> Vec<Event> {
        let by = match rng.random_range(0..10) {
            0..5 => FORM,
            5..7 => AUTOMATION,
            _ => team[owner].id,
        };
        let before = iso(at - TimeDelta::milliseconds(rng.random_range(300..1500)));
        let mut values = json!({
            "email1": { "email": "buyer@example.com", "text": "buyer@example.com", "changed_at": before },
        });
        values[self.board.status] = self.board.status_value(Stage::New);
        if rng.random_bool(0.7) {
            values[self.board.industry] = self.board.industry_value(self.industry).1;
        }
        if by > 0 || rng.random_bool(0.45) {
            self.owner = Some(owner);
            values[self.board.owner] = people(team, Some(owner), &before);
        }
        let name = self.name.clone();
        let mut pen = self.pen(rng);
        pen.plain(
            "create_pulse",
            at,
            by,
            json!({
                "pulseName": name, "groupId": "topics", "groupName": "New", "groupColor": "#579bfc",
                "isTopGroup": true, "columnValues": values,
            }),
        );
        pen.events
    }

    /// The next thing that happens to it; `successor` is who gets it if it changes hands.
    pub(super) fn step(
        &mut self,
        rng: &mut StdRng,
        at: DateTime<Utc>,
        team: &[Agent],
        successor: usize,
    ) -> Vec<Event> {
        let Some(owner) = self.owner else {
            self.owner = Some(successor);
            let by = if rng.random_bool(0.6) { AUTOMATION } else { 7001 };
            return self.assign(rng, at, by, team, None);
        };
        let agent = &team[owner];
        let mut events = match self.stage {
            _ if self.archived => self.after_archive(rng, at, agent.id),
            Stage::New => self.first_steps(rng, at, agent.id),
            Stage::Won | Stage::Lost => self.after_close(rng, at, agent.id),
            Stage::Contacted | Stage::Proposal | Stage::Negotiation => {
                self.work(rng, at, team, agent, successor)
            }
        };
        if rng.random_bool(0.004) {
            // Kinds come that nobody has heard of.
            let mut pen = self.pen(rng);
            pen.plain("item_reaction_added", at, agent.id, json!({ "reaction": "👍" }));
            events.extend(pen.events);
        }
        events
    }

    fn first_steps(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        match rng.random_range(0..100) {
            0..4 if !self.touched => {
                self.done = true; // forgotten
                Vec::new()
            }
            0..65 => self.enter(rng, at, user, Stage::Contacted),
            65..85 => self.update(rng, at, user),
            _ => self.next_call(rng, at, user),
        }
    }

    fn work(
        &mut self,
        rng: &mut StdRng,
        at: DateTime<Utc>,
        team: &[Agent],
        agent: &Agent,
        successor: usize,
    ) -> Vec<Event> {
        let user = agent.id;
        match rng.random_range(0..100) {
            0..16 => self.update(rng, at, user),
            16..30 => self.next_call(rng, at, user),
            30..42 => self.price(rng, at, user),
            42..45 => self.rename(rng, at, user),
            45..48 if self.owner != Some(successor) => {
                let before = self.owner.replace(successor);
                self.assign(rng, at, user, team, before)
            }
            48..50 => {
                let mut pen = self.pen(rng);
                pen.subitem(at, user);
                pen.events
            }
            50..53 => self.set_industry(rng, at, user),
            53..78 => match self.stage {
                Stage::Contacted => self.enter(rng, at, user, Stage::Proposal),
                Stage::Proposal => self.enter(rng, at, user, Stage::Negotiation),
                _ => self.decide(rng, at, agent),
            },
            78..86 => self.decide(rng, at, agent),
            _ => self.update(rng, at, user),
        }
    }

    fn decide(&mut self, rng: &mut StdRng, at: DateTime<Utc>, agent: &Agent) -> Vec<Event> {
        if !rng.random_bool(agent.skill) {
            return self.enter(rng, at, agent.id, Stage::Lost);
        }
        let mut events = Vec::new();
        if self.amount.is_none() {
            events.extend(self.price(rng, at - TimeDelta::seconds(20), agent.id));
        }
        events.extend(self.enter(rng, at, agent.id, Stage::Won));
        let mut pen = self.pen(rng);
        let moved = json!({
            "sourceGroupId": "topics", "destGroupId": "won_group",
            "destGroup": { "id": "won_group", "title": "Won", "color": "#cab641", "is_top_group": false },
        });
        pen.plain("move_pulse_into_group", at + TimeDelta::seconds(3), agent.id, moved);
        events.extend(pen.events);
        events
    }

    fn after_close(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        let won = self.stage == Stage::Won;
        match rng.random_range(0..100) {
            0..3 => self.enter(rng, at, user, Stage::Contacted),
            3..7 if !won => self.enter(rng, at, user, Stage::Contacted),
            7..9 if !won => {
                self.done = true;
                self.plain(rng, "delete_pulse", at, user, json!({}))
            }
            9..40 if won => self.archive(rng, at, user),
            9..20 => self.archive(rng, at, user),
            _ => {
                self.done = true;
                Vec::new()
            }
        }
    }

    fn archive(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        self.archived = true;
        self.plain(rng, "archive_pulse", at, user, json!({}))
    }

    fn after_archive(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        if rng.random_bool(0.9) {
            self.done = true;
            return Vec::new();
        }
        self.archived = false;
        let value =
            json!({ "value": { "state": 1, "is_undo": true }, "previousValue": { "state": 2 } });
        self.plain(rng, "restore_pulse", at, user, value)
    }

    fn enter(
        &mut self,
        rng: &mut StdRng,
        at: DateTime<Utc>,
        user: i64,
        stage: Stage,
    ) -> Vec<Event> {
        let previous = self.board.status_value(self.stage);
        (self.stage, self.touched) = (stage, true);
        let value = self.board.status_value(stage);
        self.change(
            rng,
            at,
            user,
            Change { column: self.board.status, kind: "color", title: "Status", value, previous },
        )
    }

    fn assign(
        &self,
        rng: &mut StdRng,
        at: DateTime<Utc>,
        by: i64,
        team: &[Agent],
        before: Option<usize>,
    ) -> Vec<Event> {
        let written = iso(at - TimeDelta::milliseconds(400));
        let value = people(team, self.owner, &written);
        let previous = before.map_or_else(|| json!({}), |_| people(team, before, &written));
        self.change(
            rng,
            at,
            by,
            Change {
                column: self.board.owner,
                kind: "multiple-person",
                title: "Owner",
                value,
                previous,
            },
        )
    }

    fn price(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        // Most deals are small and a few are large.
        let tens = (60.0 * 40_f64.powf(rng.random::<f64>().powi(2))).round();
        let cents = if rng.random_bool(0.2) { rng.random_range(1..100) } else { 0 };
        let amount = format!("{}.{cents:02}", tens * 10.0).trim_end_matches(".00").to_owned();
        let money = |amount: &str| json!({ "value": number(amount), "unit": { "symbol": "₪" } });
        let previous = self.amount.as_deref().map_or(Value::Null, money);
        let value = money(&amount);
        self.amount = Some(amount);
        self.change(
            rng,
            at,
            user,
            Change { column: self.board.amount, kind: "numeric", title: "Deal", value, previous },
        )
    }

    fn set_industry(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        let (kind, value) = self.board.industry_value(self.industry);
        self.change(
            rng,
            at,
            user,
            Change {
                column: self.board.industry,
                kind,
                title: "Industry",
                value,
                previous: Value::Null,
            },
        )
    }

    fn next_call(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        self.touched = true;
        let day = (at + TimeDelta::days(rng.random_range(1..12))).format("%Y-%m-%d").to_string();
        let value = json!({ "date": day, "icon": null, "time": null, "changed_at": iso(at) });
        self.change(
            rng,
            at,
            user,
            Change {
                column: self.board.next_call,
                kind: "date",
                title: "Next call",
                value,
                previous: Value::Null,
            },
        )
    }

    fn update(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        self.touched = true;
        let text = super::people::pick(
            rng,
            &[
                "called",
                "left a message",
                "sent the deck",
                "דיברנו, לחזור בשבוע הבא",
                "meeting set",
            ],
        );
        let id: u32 = rng.random_range(1..1_000_000_000);
        let more = json!({ "body": format!("<p>{text}</p>"), "textBody": text, "updateId": id, "replyId": null });
        let mut events = self.plain(rng, "create_update", at, user, more.clone());
        // The typing errors of the trade.
        if rng.random_bool(0.05) {
            let kind = if rng.random_bool(0.7) { "edit_update" } else { "delete_update" };
            events.extend(self.plain(rng, kind, at + TimeDelta::seconds(40), user, more));
        }
        events
    }

    fn rename(&mut self, rng: &mut StdRng, at: DateTime<Utc>, user: i64) -> Vec<Event> {
        let before = self.name.clone();
        let base = before.split(" (").next().unwrap_or(&before);
        self.name = format!("{base} (VIP)");
        let more = json!({ "value": { "name": self.name }, "previousValue": { "name": before } });
        self.plain(rng, "update_name", at, user, more)
    }

    fn plain(
        &self,
        rng: &mut StdRng,
        kind: &str,
        at: DateTime<Utc>,
        user: i64,
        more: Value,
    ) -> Vec<Event> {
        let mut pen = self.pen(rng);
        pen.plain(kind, at, user, more);
        pen.events
    }

    fn change(
        &self,
        rng: &mut StdRng,
        at: DateTime<Utc>,
        user: i64,
        change: Change<'_>,
    ) -> Vec<Event> {
        let mut pen = self.pen(rng);
        pen.column(at, user, change);
        pen.events
    }

    fn pen<'a>(&self, rng: &'a mut StdRng) -> Pen<'a> {
        Pen { rng, board: self.board, item: self.item, name: self.name.clone(), events: Vec::new() }
    }
}

fn people(team: &[Agent], owner: Option<usize>, at: &str) -> Value {
    match owner {
        Some(owner) => json!({
            "personsAndTeams": [{ "id": team[owner].id, "kind": "person" }], "changed_at": at,
        }),
        None => json!({}),
    }
}
