use std::collections::BTreeSet;

use leadpulse_nats::Kind;
use leadpulse_service::config::Config;
use projector::{
    event::LeadKey,
    mapping::Mapping,
    reader::{
        self, ReadError, Seen,
        lead::LeadHistory,
        range::{Bounds, Edge, RangeReader, Select},
    },
    store::LeftOut,
};
use tests::{
    harness::{ORG, Projection, configuration},
    naive::Event,
};

use super::{history, setup};

struct Record {
    stream: async_nats::jetstream::stream::Stream,
    seen: Seen,
}

impl Record {
    async fn of(projection: &Projection) -> Self {
        let stream = reader::find(&projection.jetstream().await).await.unwrap();
        let seen = reader::look(&stream).await.unwrap();
        Self { stream, seen }
    }

    async fn read(&self, bounds: Bounds, select: Select) -> Result<Vec<u64>, ReadError> {
        let mut reader =
            RangeReader::open(&self.stream, &self.seen.identity, bounds, select).await?;
        let mut seqs = Vec::new();
        while let Some(chunk) = reader.next().await? {
            assert!(reader.read() <= bounds.to);
            seqs.extend(chunk.iter().map(|delivery| delivery.seq));
        }
        assert_eq!(reader.read(), bounds.to.max(bounds.from - 1));
        Ok(seqs)
    }
}

#[tokio::test]
async fn a_range_gives_what_was_asked_for_once_and_in_order() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(10, 800, 21)).await;
    let record = Record::of(&projection).await;
    let last = projection.last_seq();
    let arrivals = projection.arrivals.iter();
    let events: Vec<(u64, Event)> = arrivals.map(|one| (one.seq, Event::read(one))).collect();

    let all = Bounds::resolve(&record.stream, &record.seen, None, None).await.unwrap();
    assert_eq!(all, Bounds { from: 1, to: last });
    let cases = [
        Select::default(),
        Select { org: Some(ORG.into()), ..Select::default() },
        Select { board: Some(9002), ..Select::default() },
        Select { kind: Some(Kind::UpdateColumnValue), ..Select::default() },
        Select { board: Some(9001), item: Some(3), ..Select::default() },
        Select { org: Some("nobody".into()), ..Select::default() },
    ];
    for select in cases {
        for (from, to) in [(1, last), (100, 300), (last, last), (7, 6)] {
            let wanted: Vec<u64> = events
                .iter()
                .filter(|(seq, _)| (from..=to).contains(seq))
                .filter(|_| select.org.as_deref().is_none_or(|org| org == ORG))
                .filter(|(_, event)| select.board.is_none_or(|id| event.board_id() == Some(id)))
                .filter(|(_, event)| {
                    select.item.is_none_or(|id| event.lead().map(|lead| lead.1) == Some(id))
                })
                .filter(|(_, event)| {
                    let kind = Kind::of(event.json["type"].as_str().unwrap_or_default());
                    select.kind.as_ref().is_none_or(|wanted| *wanted == kind)
                })
                .map(|(seq, _)| *seq)
                .collect();
            let found = record.read(Bounds { from, to }, select.clone()).await.unwrap();
            assert_eq!(found, wanted, "{select:?} {from} to {to}");
        }
    }
}

#[tokio::test]
async fn a_range_begins_at_a_time_and_ends_before_one() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(5, 60, 22)).await;
    let first_part = projection.last_seq();
    // Both are of one clock, and what was acknowledged is stored.
    let between = chrono::Utc::now();
    projection.publish(&history(5, 60, 23)).await;
    let record = Record::of(&projection).await;
    let resolve = async |from, to| {
        let bounds = Bounds::resolve(&record.stream, &record.seen, from, to).await.unwrap();
        (bounds.from, bounds.to)
    };
    let (at, last) = (Some(Edge::Time(between)), projection.last_seq());
    assert_eq!(resolve(at, None).await, (first_part + 1, last));
    assert_eq!(resolve(None, at).await, (1, first_part));
    let future = Some(Edge::Time(between + chrono::TimeDelta::hours(1)));
    assert_eq!(resolve(future, None).await, (last + 1, last));
    assert_eq!(resolve(None, future).await, (1, last));
}

#[tokio::test]
async fn a_range_that_the_stream_does_not_have_is_a_fault_and_a_lost_server_is_none() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(8, 1500, 24)).await;
    let mut record = Record::of(&projection).await;
    let last = projection.last_seq();
    let beyond = record.read(Bounds { from: 1, to: last + 1 }, Select::default()).await;
    assert!(matches!(beyond, Err(ReadError::Behind { .. })));

    let bounds = Bounds { from: 1, to: last };
    let open = RangeReader::open(&record.stream, &record.seen.identity, bounds, Select::default());
    let mut reader = open.await.unwrap();
    let mut seqs: BTreeSet<u64> = BTreeSet::new();
    let mut killed = false;
    while let Some(chunk) = reader.next().await.unwrap() {
        for delivery in chunk {
            assert!(seqs.insert(delivery.seq), "{} came twice", delivery.seq);
        }
        if !killed {
            projection.ground.nats.kill9();
            projection.ground.nats.restart().unwrap();
            killed = true;
        }
    }
    assert_eq!(seqs.len(), projection.arrivals.len());

    record = Record::of(&projection).await;
    record.stream.purge().sequence(50).await.unwrap();
    let trimmed = record.read(bounds, Select::default()).await;
    assert!(matches!(trimmed, Err(ReadError::Trimmed { first: 50, applied: 0 })));
    let jetstream = projection.jetstream().await;
    jetstream.delete_stream("LEADPULSE_EVENTS").await.unwrap();
    tests::harness::create_stream(&projection.ground).await;
    let recreated = record.read(bounds, Select::default()).await;
    assert!(matches!(recreated, Err(ReadError::Recreated)));
}

#[tokio::test]
async fn one_leads_events_fold_to_its_row() {
    let mut projection = Projection::start(setup(&[])).await;
    projection.publish(&history(6, 400, 25)).await;
    projection.check().await;
    let record = Record::of(&projection).await;
    let text = configuration(&projection.ground.rules);
    let config = Config::parse("test", &text, &|_| None).unwrap();
    let mapping = Mapping::of(&config);
    let bounds = Bounds { from: 1, to: projection.last_seq() };
    for ((board_id, item_id), lead) in projection.leads().await {
        let key = LeadKey { org_id: ORG.into(), board_id, item_id };
        let history = LeadHistory::read(
            &record.stream,
            &record.seen.identity,
            bounds,
            &key,
            &mapping,
            &LeftOut::default(),
        )
        .await
        .unwrap();
        let (_, row) = history.fold(mapping.board(ORG, board_id).unwrap()).unwrap();
        assert_eq!(row.name, lead.name);
        assert_eq!(row.closed_by_user_id, lead.closed_by_user_id);
        assert_eq!(row.last_seq, lead.last_seq);
        assert_eq!(row.entered_at.timestamp_micros(), lead.entered_at);
    }
}
