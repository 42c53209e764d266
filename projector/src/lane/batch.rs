//! A batch on its way from messages to rows: decoded, grouped by lead, folded, written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::PgConnection;
use tracing::warn;

use super::{Delivery, Item, LARGEST, Room};
use crate::{
    event::{self, LeadEvent, LeadKey, Meaning, UserEvent},
    fold::LeadRow,
    mapping::Mapping,
    store::{self, Known, Loaded, Mark, Parked, SetAside, WriteError},
};

/// All events of one lead in the batch, and what becomes of it.
#[derive(Debug, Default)]
pub(super) struct LeadBatch {
    pub(super) events: Vec<(LeadEvent, Delivery)>,
    outcome: Option<Outcome>,
}

#[derive(Debug)]
struct Outcome {
    known: Known,
    row: LeadRow,
    changed: bool,
    /// The agents of the row before: their figures lose this lead.
    agents_before: [Option<i64>; 2],
}

#[derive(Debug, Default)]
pub(super) struct Batch {
    /// The position after this batch.
    pub(super) to: u64,
    pub(super) events: usize,
    pub(super) leads: BTreeMap<LeadKey, LeadBatch>,
    users: Vec<(UserEvent, Delivery)>,
    parked: Vec<Parked>,
    /// Org and id of events that wait as letters of an earlier stream.
    returned: Vec<(String, String)>,
    /// With the first event that waits.
    newly_parked: HashMap<LeadKey, u64>,
    /// Why the last of what is newly parked was refused.
    refusal: Option<String>,
    /// Given back when the batch is over.
    rooms: Vec<Room>,
}

impl Batch {
    /// Decodes what is new to this lane. What was skipped is left out, and the events of a parked lead wait
    /// behind its dead letters.
    pub(super) fn of(items: Vec<Item>, position: u64, mapping: &Mapping, aside: &SetAside) -> Self {
        let mut batch = Self::default();
        for item in items {
            match item {
                Item::Advance(seq) => batch.to = batch.to.max(seq),
                Item::Event(delivery, room) if delivery.seq > position => {
                    batch.rooms.extend(room);
                    batch.to = batch.to.max(delivery.seq);
                    batch.events += 1;
                    batch.add(*delivery, mapping, aside);
                }
                Item::Event(..) | Item::Retry(_) => {}
            }
        }
        batch
    }

    fn add(&mut self, delivery: Delivery, mapping: &Mapping, aside: &SetAside) {
        if let Ok(envelope) = &delivery.envelope
            && aside.returns(&delivery.envelope)
        {
            self.returned.push((envelope.org.clone(), envelope.event_id.clone()));
        }
        if aside.is_left_out(delivery.seq, &delivery.envelope) {
            metrics::counter!("projector_ignored_total", "why" => "left_out").increment(1);
            return;
        }
        let envelope = match &delivery.envelope {
            Ok(envelope) => envelope,
            Err(reason) => {
                let reason = reason.clone();
                self.refusal = Some(reason.clone());
                return self.parked.push(Parked::of(delivery, reason));
            }
        };
        match event::decode(envelope, delivery.seq, delivery.trace_id, mapping) {
            Meaning::Lead(event) if aside.is_parked(&event.key, event.seq) => {
                self.parked
                    .push(Parked::of(delivery, "an earlier event of this lead is parked".into()));
            }
            Meaning::Lead(event) => {
                tracing::debug!(
                    seq = event.seq,
                    event_id = event.event_id,
                    trace_id = event.trace_id.map(|id| id.simple().to_string()),
                    "applying event {}",
                    event.event_id
                );
                self.leads.entry(event.key.clone()).or_default().events.push((event, delivery));
            }
            Meaning::User(user) => self.users.push((user, delivery)),
            Meaning::Nothing(why) => {
                metrics::counter!("projector_ignored_total", "why" => why).increment(1);
            }
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &LeadKey> {
        self.leads.keys()
    }

    /// Folds each lead's events onto what is known of it: nothing is known of a lead without a row.
    pub(super) fn fold<'k>(
        &mut self,
        known: impl Fn(&LeadKey) -> Option<&'k Known>,
        mapping: &Mapping,
    ) {
        for (key, lead) in &mut self.leads {
            lead.fold(key, known(key), mapping);
        }
    }

    /// Parks the leads whose history can't be read: to fold onto none would lose it. Were there any?
    pub(super) fn park_damaged(&mut self, loaded: &Loaded) -> bool {
        let damaged = loaded.iter().filter_map(|(key, known)| Some((key, known.as_ref().err()?)));
        for (key, error) in damaged {
            let reason = damaged_reason(error);
            if let Some(lead) = self.leads.remove(key) {
                self.park_all(key, lead.events, &reason);
            }
        }
        !self.newly_parked.is_empty()
    }

    fn park_all(&mut self, key: &LeadKey, events: Vec<(LeadEvent, Delivery)>, reason: &str) {
        warn!(board_id = key.board_id, item_id = key.item_id, "lead parked: {reason}");
        metrics::counter!("projector_parked_leads_total").increment(1);
        if let Some((first, _)) = events.first() {
            self.newly_parked.insert(key.clone(), first.seq);
        }
        self.refusal = Some(reason.to_owned());
        let parked = |(_, delivery)| Parked::of(delivery, reason.to_owned());
        self.parked.extend(events.into_iter().map(parked));
    }

    pub(super) fn changed(&self) -> impl Iterator<Item = (&LeadKey, &LeadRow)> {
        self.outcomes()
            .filter(|(_, outcome)| outcome.changed)
            .map(|(key, outcome)| (key, &outcome.row))
    }

    fn outcomes(&self) -> impl Iterator<Item = (&LeadKey, &Outcome)> {
        self.leads.iter().filter_map(|(key, lead)| Some((key, lead.outcome.as_ref()?)))
    }

    /// Everything of the batch but the position.
    pub(super) async fn write(&self, connection: &mut PgConnection) -> Result<(), WriteError> {
        let changed = || self.outcomes().filter(|(_, outcome)| outcome.changed);
        let rows: Vec<_> = changed()
            .map(|(key, outcome)| (key, &outcome.row, outcome.known.state.encode()))
            .collect();
        if !rows.is_empty() {
            store::upsert_leads(connection, &rows).await?;
        }
        crash_point!("lane-rows");
        store::mark_dirty(connection, &self.marks()).await?;
        crash_point!("lane-marks");
        store::upsert_users(connection, self.users()).await?;
        crash_point!("lane-users");
        store::park(connection, &self.parked).await?;
        store::settle_returned(connection, &self.returned).await?;
        Ok(())
    }

    /// The agents that the changes touch, each with the lead. A lane that is far behind marks agents as a whole:
    /// so many rows more would cost it, and nobody waits for the figures then.
    fn marks(&self) -> Vec<Mark<'_>> {
        let behind = self.events > LARGEST;
        let mut marks = BTreeMap::new();
        for (key, outcome) in self.outcomes().filter(|(_, outcome)| outcome.changed) {
            let first = self.leads.get(key).and_then(|lead| lead.first_seq()).unwrap_or(self.to);
            let lead = (!behind).then_some((key.board_id, key.item_id));
            for agent in outcome.agents().into_iter().flatten() {
                let seq = marks.entry((key.org_id.as_str(), agent, lead)).or_insert(first);
                *seq = first.min(*seq);
            }
        }
        let marks = marks.into_iter();
        marks.map(|((org_id, agent_id, lead), seq)| Mark { org_id, agent_id, lead, seq }).collect()
    }

    /// Takes a lead's events from the given one on out of the batch and into the dead letters.
    pub(super) fn park(
        &mut self,
        key: &LeadKey,
        from: usize,
        reason: &str,
        before: Known,
        mapping: &Mapping,
    ) {
        let Some(mut lead) = self.leads.remove(key) else { return };
        let rest = lead.events.split_off(from.min(lead.events.len()));
        self.park_all(key, rest, reason);
        if !lead.events.is_empty() {
            lead.fold(key, Some(&before), mapping);
            self.leads.insert(key.clone(), lead);
        }
    }

    pub(super) fn users(&self) -> impl Iterator<Item = &UserEvent> {
        self.users.iter().map(|(user, _)| user)
    }

    /// Takes these users' snapshots out of the batch and into the dead letters.
    pub(super) fn park_users(&mut self, seqs: &BTreeSet<u64>, reason: &str) {
        for (_, delivery) in self.users.extract_if(.., |(user, _)| seqs.contains(&user.seq)) {
            self.parked.push(Parked::of(delivery, reason.to_owned()));
        }
    }

    /// Messages that are no envelopes, or those of a newer ingest.
    pub(super) fn unreadable(&self) -> usize {
        self.parked.iter().filter(|letter| letter.envelope.is_none()).count()
    }

    pub(super) fn last_refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// The leads that this batch parks, each with its first event that waits.
    pub(super) fn parked_leads(&self) -> impl Iterator<Item = (LeadKey, u64)> {
        self.newly_parked.iter().map(|(key, first)| (key.clone(), *first))
    }

    pub(super) fn touched_orgs(&self) -> BTreeSet<String> {
        let leads = self.changed().map(|(key, _)| &key.org_id);
        leads.chain(self.users.iter().map(|(user, _)| &user.org_id)).cloned().collect()
    }

    pub(super) fn into_known(self) -> impl Iterator<Item = (LeadKey, Known)> {
        self.leads.into_iter().filter_map(|(key, lead)| Some((key, lead.outcome?.known)))
    }
}

impl LeadBatch {
    /// `before` is what was known of the lead, if anything was.
    fn fold(&mut self, key: &LeadKey, before: Option<&Known>, mapping: &Mapping) {
        let unknown = Known::default();
        let before = before.unwrap_or(&unknown);
        let mut state = before.state.clone();
        for (event, _) in &self.events {
            state.apply(event);
        }
        let board = mapping.board(&key.org_id, key.board_id);
        self.outcome = board.and_then(|board| state.row(board)).map(|row| Outcome {
            changed: state != before.state,
            agents_before: [before.assigned_user_id, before.closed_by_user_id],
            known: Known {
                state,
                assigned_user_id: row.assigned_user_id,
                closed_by_user_id: row.closed_by_user_id,
            },
            row,
        });
    }

    fn first_seq(&self) -> Option<u64> {
        self.events.iter().map(|(event, _)| event.seq).min()
    }
}

impl Outcome {
    /// All agents whose figures this change may move, the old and the new.
    fn agents(&self) -> [Option<i64>; 4] {
        let [assigned, closed_by] = self.agents_before;
        [assigned, closed_by, self.row.assigned_user_id, self.row.closed_by_user_id]
    }
}

/// Why a lead is parked, or stays parked, whose row can't be read.
pub(super) fn damaged_reason(error: &minicbor::decode::Error) -> String {
    format!("the row's fold_state can't be read ({error}); `projector rebuild-lead` makes it anew")
}

impl Parked {
    pub(crate) fn of(delivery: Delivery, reason: String) -> Self {
        let Delivery { seq, trace_id, payload, envelope } = delivery;
        Self { seq, trace_id, payload, envelope: envelope.ok(), reason }
    }
}
