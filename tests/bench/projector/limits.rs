//! What the projector is measured against: reading alone, and upserting the same rows alone.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Instant,
};

use projector::{
    event::{LeadKey, Meaning, decode},
    fold::{LeadRow, LeadState},
    lane::{Item, Routes},
    reader, store,
};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Options, mapping};
use crate::{
    report::rate,
    stage::{Spread, Stage, event},
};

/// (a): the projector's own reader and decoder, with nobody behind them.
pub(crate) async fn read_only(stage: &Stage, events: u64) -> f64 {
    let jetstream = stage.jetstream().await;
    let stream = reader::find(&jetstream).await.unwrap();
    let seen = reader::look(&stream).await.unwrap();
    let (sender, mut receiver) = mpsc::channel(projector::lane::QUEUE);
    let stop = CancellationToken::new();
    let (token, mapping) = (stop.clone(), mapping());
    let started = Instant::now();
    let reading = tokio::spawn(async move {
        reader::read(&stream, &seen.identity, 0, &Routes::new(vec![sender]), token).await
    });
    let mut count = 0;
    while let Some(item) = receiver.recv().await {
        if let Item::Event(delivery, _) = item {
            let envelope = delivery.envelope.unwrap();
            assert!(matches!(decode(&envelope, delivery.seq, None, &mapping), Meaning::Lead(_)));
            count += 1;
            if count == events {
                break;
            }
        }
    }
    let took = started.elapsed();
    stop.cancel();
    drop(receiver);
    let _ = reading.await;
    rate(count as usize, took)
}

/// (b): the rows that the projector writes, each as it was then, in statements of 1,000, from so many
/// connections, into a table with the same indexes. Each lead is one connection's, as it is
/// one lane's.
pub(super) async fn upserts_only(
    pool: &PgPool,
    options: &Options,
    spread: Spread,
    connections: u32,
) -> f64 {
    let lanes = written_by_lane(options, spread, connections);
    let rows: usize = lanes.iter().map(Vec::len).sum();
    let started = Instant::now();
    let mut writers = Vec::new();
    for lane in lanes {
        let pool = pool.clone();
        writers.push(tokio::spawn(async move {
            for statement in lane.chunks(1000) {
                let mut tx = pool.begin().await.unwrap();
                store::upsert_leads(&mut tx, &without_repeats(statement)).await.unwrap();
                tx.commit().await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    rate(rows, started.elapsed())
}

type Written = (LeadKey, LeadRow, Vec<u8>);

/// Postgres takes a key once in a statement: of several versions, the last. In the order of the keys, as in a
/// lane.
fn without_repeats(rows: &[Written]) -> Vec<(&LeadKey, &LeadRow, Vec<u8>)> {
    let last: BTreeMap<&LeadKey, &Written> = rows.iter().map(|row| (&row.0, row)).collect();
    last.into_values().map(|(key, row, state)| (key, row, state.clone())).collect()
}

/// Every version of every lead's row, coalesced over as many events as a lane takes when it is behind.
fn written_by_lane(options: &Options, spread: Spread, lanes: u32) -> Vec<Vec<Written>> {
    let mapping = mapping();
    let board = mapping.board(crate::stage::ORG, 9001).unwrap();
    let lanes = u64::from(lanes);
    let mut written: Vec<Vec<Written>> = (0..lanes).map(|_| Vec::new()).collect();
    let mut states = HashMap::<LeadKey, LeadState>::new();
    let batch = u64::from(options.lanes) * 5000;
    for start in (0..options.events).step_by(usize::try_from(batch).unwrap()) {
        let mut touched = BTreeSet::new();
        for n in start..(start + batch).min(options.events) {
            let envelope = event(spread.lead(n, options.leads), n);
            if let Meaning::Lead(event) = decode(&envelope, n + 1, None, &mapping) {
                states.entry(event.key.clone()).or_default().apply(&event);
                touched.insert((event.key.item_id, event.key.clone()));
            }
        }
        for (item_id, key) in touched {
            let state = &states[&key];
            let lane = usize::try_from(item_id.unsigned_abs() % lanes).unwrap();
            let Some(row) = state.row(board) else { continue };
            written[lane].push((key, row, state.encode()));
        }
    }
    written
}
