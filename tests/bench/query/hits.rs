//! (a) to (d): finished answers of two lengths, beside a bare server that sends the same bytes.

use std::{sync::Arc, time::Duration};

use tests::harness::{PATIENCE, wait_until};

use super::{
    CONNECTIONS, always,
    load::{Load, Requests, middle},
    stage::{ORGS, Running, Stage, read, request},
};
use crate::report::{per_second, table};

const READS: [&str; 2] = ["/v1/kpis/summary?from=2026-01-01&to=2026-02-01", "/v1/leads?limit=50"];

pub(super) async fn measure(stage: &Stage, rounds: usize, span: Duration) {
    let mut rows = Vec::new();
    for path in READS {
        let api = stage.query_api(&[("CACHE_TTL_SECONDS", "3600")]).await;
        let body = read(api.port, &stage.keys[0], path).await.body().to_vec();
        let mut made = Vec::new();
        for _ in 0..rounds.max(1) {
            made.push(Round::make(stage, &api, path, &body, span).await);
        }
        rows.extend(shown(&mut made, body.len()));
    }
    rows.push(redis(stage, rounds).await);
    table(&["answer", "rate at 64 connections", "share of (a)", "CPU for one", "p50 / p99"], &rows);
}

/// (a), (b) and (c) within some seconds of each other: a shared machine is another one a minute later.
struct Round {
    a: Side,
    b: Side,
    c: Side,
}

/// How much was answered, the server's CPU for one answer, and the times that the client saw.
struct Side {
    rate: f64,
    cpu: Duration,
    spread: String,
}

impl Round {
    async fn make(stage: &Stage, api: &Running, path: &str, body: &[u8], span: Duration) -> Self {
        let key = &stage.keys[0];
        let plain = always(request(key, path, ""));
        let bare = stage.bare(body).await;
        let a = Side::of(&bare, &plain, span, (200, "")).await;
        drop(bare);
        let b = Side::of(api, &plain, span, (200, "memory; hit")).await;
        let tag = read(api.port, key, path).await.header("etag").unwrap();
        let known = always(request(key, path, &format!("if-none-match: {tag}\r\n")));
        let c = Side::of(api, &known, span, (304, "memory; hit")).await;
        Self { a, b, c }
    }

    fn share(&self, side: impl Fn(&Self) -> &Side) -> f64 {
        side(self).rate / self.a.rate
    }
}

impl Side {
    async fn of(server: &Running, ask: &Requests, span: Duration, answer: (u16, &str)) -> Self {
        let load = Load::new(server.port, CONNECTIONS, span);
        Load { span: span / 4, ..load }.run(Arc::clone(ask)).await;
        let before = server.cpu_seconds();
        let mut figures = load.run(Arc::clone(ask)).await;
        assert!(figures.are_all(answer.0, answer.1), "{:?}", figures.origins);
        let cpu = (server.cpu_seconds() - before) / figures.times.len() as f64;
        let (rate, spread) = (figures.rate, figures.spread());
        Self { rate, cpu: Duration::from_secs_f64(cpu), spread }
    }
}

/// A row for each side: of the round with the middle share.
fn shown(rounds: &mut [Round], bytes: usize) -> Vec<Vec<String>> {
    type Get = fn(&Round) -> &Side;
    let sides: [(&str, Get); 3] = [
        ("(a) bare axum", |round| &round.a),
        ("(b) first level", |round| &round.b),
        ("(c) 304", |round| &round.c),
    ];
    let mut rows = Vec::new();
    for (name, side) in sides {
        rounds.sort_by(|one, other| one.share(side).total_cmp(&other.share(side)));
        let shares = [&rounds[0], &rounds[rounds.len() / 2], &rounds[rounds.len() - 1]];
        let [least, middle, most] = shares.map(|round| round.share(side));
        let Side { rate, cpu, spread } = side(&rounds[rounds.len() / 2]);
        rows.push(vec![
            format!("{name}, {bytes} bytes"),
            per_second(*rate),
            format!("{middle:.2} ({least:.2} to {most:.2})"),
            format!("{:.1} µs", cpu.as_secs_f64() * 1e6),
            spread.clone(),
        ]);
    }
    rows
}

/// (d): what another process has left in Redis, each answer asked for once by each new process. So short a
/// measurement is at the mercy of a single stall: of several the one with the middle p99 is shown.
async fn redis(stage: &Stage, rounds: usize) -> Vec<String> {
    const ANSWERS: u64 = 20_000;
    let keys = stage.orgs().to_vec();
    let questions: Requests = Arc::new(move |n| {
        let (key, agent) = (&keys[n as usize % ORGS], 7000 + n / ORGS as u64 % 500);
        let limit = 10 + n / (ORGS as u64 * 500);
        request(key, &format!("/v1/leads?agent_id={agent}&limit={limit}"), "")
    });
    let load = |port| Load {
        most: Some(ANSWERS),
        ..Load::new(port, CONNECTIONS, Duration::from_secs(120))
    };
    let first = stage.query_api(&[("CACHE_TTL_SECONDS", "3600")]).await;
    load(first.port).run(Arc::clone(&questions)).await;
    drop(first);
    let mut made = Vec::new();
    for _ in 0..rounds.max(1) {
        let next = stage.query_api(&[("CACHE_TTL_SECONDS", "3600")]).await;
        // The breaker closes with the first answer that its watcher gets.
        wait_until("redis is in use", PATIENCE, async || {
            next.metric("query_api_redis_breaker_closed", &[]).await >= 1.0
        })
        .await;
        let half = Load { most: Some(ANSWERS / 2), ..load(next.port) };
        let full = half.run(Arc::clone(&questions)).await;
        assert!(full.are_all(200, "redis; hit, memory; fwd=miss; stored"), "{:?}", full.origins);
        let half = Load { rate: Some(full.rate / 2.0), ..half };
        let questions = Arc::clone(&questions);
        let rest: Requests = Arc::new(move |n| questions(n + ANSWERS / 2));
        made.push((full, half.run(rest).await));
    }
    let (mut full, mut calm): (Vec<_>, Vec<_>) = made.into_iter().unzip();
    full.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let rate = full[full.len() / 2].rate;
    let (full, calm) = (middle(&mut full), middle(&mut calm));
    vec![
        "(d) Redis".to_owned(),
        per_second(rate),
        String::new(),
        String::new(),
        format!("{full}; at half the rate {calm}"),
    ]
}
