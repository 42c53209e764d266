//! The projector alone, on a stream that the test fills itself: what the tables hold is compared, whole,
//! with the naive implementation.

use std::collections::BTreeMap;

use anyhow::Result;
use async_nats::jetstream;
use chrono::{DateTime, TimeZone, Utc};
use leadpulse_nats::{Envelope, Kind, envelope, streams};
use serde_json::value::RawValue;
use sqlx::Row;

use super::{Ground, ORG, PATIENCE, SOURCE, Service, Setup, eventually};
use crate::naive::{AgentMetrics, Arrival, Event, Lead, World, agents, tables};

pub struct Projection {
    pub projector: Service,
    pub ground: Ground,
    pub arrivals: Vec<Arrival>,
}

impl Projection {
    /// Starts the servers with an empty stream, and one projector.
    pub async fn start(setup: Setup) -> Self {
        let ground = Ground::prepare(setup).await.expect("the servers start");
        create_stream(&ground).await;
        let projector = ground.start("projector").expect("the projector starts");
        Self { projector, ground, arrivals: Vec::new() }
    }

    pub async fn jetstream(&self) -> jetstream::Context {
        jetstream(&self.ground).await
    }

    /// Puts events into the stream as ingest would, each received now.
    pub async fn publish(&mut self, events: &[String]) {
        let jetstream = self.jetstream().await;
        let mut waiting = Vec::new();
        for event in events {
            let received_at = Utc::now().timestamp_micros();
            let arrival = Arrival { seq: 0, received_at, event: event.clone() };
            let envelope = envelope(&arrival);
            let mut headers = async_nats::HeaderMap::new();
            headers.insert(envelope::MESSAGE_ID, envelope.message_id().as_str());
            let payload = serde_json::to_vec(&envelope).expect("an envelope is JSON");
            let publish =
                jetstream.publish_with_headers(envelope.subject(), headers, payload.into());
            waiting.push((arrival, publish.await.expect("NATS takes a message")));
            if waiting.len() == 256 {
                self.acknowledged(std::mem::take(&mut waiting)).await;
            }
        }
        self.acknowledged(waiting).await;
    }

    async fn acknowledged(
        &mut self,
        waiting: Vec<(Arrival, jetstream::context::PublishAckFuture)>,
    ) {
        for (arrival, ack) in waiting {
            let ack = ack.await.expect("the stream takes a message");
            if !ack.duplicate {
                self.arrivals.push(Arrival { seq: ack.sequence, ..arrival });
            }
        }
    }

    pub fn last_seq(&self) -> u64 {
        self.arrivals.iter().map(|arrival| arrival.seq).max().unwrap_or(0)
    }

    /// Waits until the tables have everything, AgentMetrics included.
    pub async fn settle(&self) {
        self.settle_within(PATIENCE).await;
    }

    /// The same for long histories.
    pub async fn settle_within(&self, patience: std::time::Duration) {
        let last = i64::try_from(self.last_seq()).expect("a small sequence");
        eventually("the projector has everything", patience, async || {
            let (applied, marks): (Option<i64>, i64) = sqlx::query_as(
                "select (select min(seq) from checkpoint where projection = 'main'),
                        (select count(*) from agent_dirty)",
            )
            .fetch_one(&self.ground.database.pool)
            .await
            .ok()?;
            (applied? >= last && marks == 0).then_some(())
        })
        .await;
    }

    /// Settles, and compares every row of LeadFact and AgentMetrics with the naive implementation.
    pub async fn check(&self) {
        self.settle().await;
        let world = World::of(&self.arrivals, &self.ground.rules);
        assert_eq!(self.leads().await, world.leads, "LeadFact differs");
        self.check_agents(&world).await;
    }

    pub async fn leads(&self) -> BTreeMap<(i64, i64), Lead> {
        let rows = sqlx::query("select * from lead_fact where org_id = $1")
            .bind(ORG)
            .fetch_all(&self.ground.database.pool)
            .await
            .expect("the leads can be read");
        rows.iter().map(tables::lead).map(|lead| ((lead.board_id, lead.item_id), lead)).collect()
    }

    /// Each row of AgentMetrics is right at the instant at which it was computed, and until `valid_until`.
    pub async fn check_agents(&self, world: &World) {
        let leads = world.all_leads();
        let rows = sqlx::query("select * from agent_metrics where org_id = $1")
            .bind(ORG)
            .fetch_all(&self.ground.database.pool)
            .await
            .expect("the metrics can be read");
        let mut found = BTreeMap::new();
        for row in &rows {
            let computed_at: DateTime<Utc> = row.get("computed_at");
            let metrics = tables::metrics(row);
            let at = |now: i64| {
                AgentMetrics::of(
                    &leads,
                    &self.ground.rules,
                    metrics.agent_id,
                    metrics.window_days,
                    now,
                )
            };
            assert_eq!(metrics, at(computed_at.timestamp_micros()), "at {computed_at}");
            let valid_until: Option<DateTime<Utc>> = row.get("valid_until");
            if let Some(valid_until) = valid_until {
                let last = valid_until.timestamp_micros() - 1;
                assert_eq!(metrics, at(last), "still at {valid_until} less a microsecond");
            }
            found.insert((metrics.agent_id, metrics.window_days), ());
        }
        let expected: BTreeMap<(i64, u32), ()> = agents(&leads)
            .into_iter()
            .flat_map(|agent| {
                self.ground.rules.windows_days.iter().map(move |days| ((agent, *days), ()))
            })
            .collect();
        assert_eq!(found, expected, "these agents have rows");
    }
}

async fn jetstream(ground: &Ground) -> jetstream::Context {
    let connect = async || async_nats::connect(ground.nats.url()).await.ok();
    jetstream::new(eventually("NATS answers", PATIENCE, connect).await)
}

pub async fn create_stream(ground: &Ground) {
    let config = streams::events(1).expect("the definition is good");
    let created: Result<_, _> = jetstream(ground).await.create_stream(config).await;
    created.expect("the stream can be created");
}

/// The event in the envelope that ingest would put it into; its identity and time are the naive ones.
pub fn envelope(arrival: &Arrival) -> Envelope {
    let event = Event::read(arrival);
    let instant = |micros: i64| Utc.timestamp_micros(micros).single().expect("an instant");
    let item = event.lead().map(|(_, item)| item);
    Envelope {
        v: envelope::VERSION,
        org: ORG.into(),
        source: SOURCE.into(),
        event_id: event.id.clone(),
        kind: Kind::of(event.json["type"].as_str().unwrap_or_default()),
        board_id: event.board_id(),
        item_id: item,
        occurred_at: instant(event.occurred_at),
        received_at: instant(event.received_at),
        event: RawValue::from_string(arrival.event.clone()).expect("an event is JSON"),
    }
}
