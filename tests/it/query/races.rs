//! Many at once: readers that must see what was written, and a crowd on one key.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tests::harness::{PATIENCE, long_run, wait_until};
use tokio::io::AsyncWriteExt;

use super::fixture::Reads;

const LANES: i64 = 4;

/// What a lane of the projector does, as seen from outside: rows, marks and position in one transaction; then,
/// some time later, the marks go; then, some time later, the version. Each lane has a lead, an agent, and every
/// fourth sequence.
async fn write(reads: &Reads, lane: i64, seq: i64, pauses: &mut StdRng) {
    let pool = &reads.ground.database.pool;
    let mut tx = pool.begin().await.unwrap();
    let changes = [
        "update lead_fact set last_seq = $2, deal_amount = $2 where org_id = 'demo' and item_id = $1 + 1",
        "insert into agent_dirty (org_id, agent_id, seq) values ('demo', 7001 + $1, $2)",
        "update checkpoint set seq = $2 where projection = 'main' and lane = $1",
    ];
    for change in changes {
        sqlx::query(change).bind(lane).bind(seq).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    tokio::time::sleep(Duration::from_millis(pauses.random_range(0..15))).await;
    let mut tx = pool.begin().await.unwrap();
    let changes = [
        "delete from agent_dirty where agent_id = 7001 + $1 and seq <= $2",
        "update agent_metrics set assigned_count = $2 where agent_id = 7001 + $1",
    ];
    for change in changes {
        sqlx::query(change).bind(lane).bind(seq).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    if pauses.random_bool(0.3) {
        reads.publish().await;
    }
}

/// Asks for what is written by then, of any lane in any of these ways, and looks at what it gets.
async fn read_and_check(reads: &Reads, written: &[AtomicI64], choices: &mut StdRng) {
    let lane = choices.random_range(0..LANES);
    // What all lanes have: a sequence is applied when no lane is before it.
    let asked = written.iter().map(|seq| seq.load(Ordering::SeqCst)).min().unwrap();
    let (agent, board, item) = (7001 + lane, 9001 + (lane + 1) % 2, lane + 1);
    let path = match choices.random_range(0..4) {
        0 => "/v1/leads?lifecycle=all&limit=20&".to_owned(),
        1 => format!("/v1/leads/{board}/{item}?"),
        2 => format!("/v1/agents/{agent}?"),
        _ => "/v1/agents/leaderboard?window=7d&".to_owned(),
    };
    let answer = reads.get(&format!("{path}min_seq={asked}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let seq: i64 = answer.header("leadpulse-seq").unwrap().parse().unwrap();
    let body = answer.json();
    let of = |field: &str, id: i64| {
        let items = body["items"].as_array().unwrap();
        let id = id.to_string();
        items.iter().find(|item| item[field] == id.as_str()).unwrap().clone()
    };
    let shown = match path.split(['?', '/']).nth(2).unwrap() {
        "leads" if body["items"].is_array() => of("item_id", item)["last_seq"].as_i64(),
        "leads" => body["last_seq"].as_i64(),
        _ if body["items"].is_array() => of("agent_id", agent)["assigned_count"].as_i64(),
        _ => body["windows"][0]["assigned_count"].as_i64(),
    };
    // The lane's own sequences are `LANES` apart.
    let shown = shown.unwrap() + LANES - 1;
    assert!(seq >= asked, "asked for {asked}, told {seq}");
    assert!(shown >= asked, "asked for {asked}, shown {shown} in {path}");
    assert!(shown >= seq, "told {seq}, shown {shown} in {path}");
}

/// Many writers and many readers, each at random; the seed is told, for when it fails.
#[tokio::test(flavor = "multi_thread")]
async fn no_reader_ever_sees_less_than_it_asked_for() {
    let reads = Arc::new(Reads::start(true, &[]).await);
    reads.fill(20).await;
    reads.run(super::fixture::METRICS, LANES).await;
    reads
        .run("update lead_fact set lifecycle = 'active', last_seq = 0 where item_id > $1", 0)
        .await;
    reads.run("update agent_metrics set assigned_count = $1", 0).await;
    reads
        .run(
            "insert into checkpoint (projection, lane, stream, stream_created_at, seq, fence)
             select 'main', lane, 'test', now(), 0, 1 from generate_series(1, $1 - 1) as lane",
            LANES,
        )
        .await;
    let seed: u64 = rand::random();
    eprintln!("seed {seed}");
    let random = |place: u64| StdRng::seed_from_u64(seed.wrapping_add(place));
    let written: Arc<Vec<AtomicI64>> = Arc::new((0..LANES).map(|_| AtomicI64::new(0)).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..6)
        .map(|place| {
            let (reads, written, stop, mut choices) =
                (Arc::clone(&reads), Arc::clone(&written), Arc::clone(&stop), random(100 + place));
            tokio::spawn(async move {
                let mut checked = 0;
                while !stop.load(Ordering::Relaxed) {
                    read_and_check(&reads, &written, &mut choices).await;
                    checked += 1;
                }
                checked
            })
        })
        .collect();
    let rounds = if long_run() { 1000 } else { 100 };
    let writers: Vec<_> = (0..LANES)
        .map(|lane| {
            let (reads, written) = (Arc::clone(&reads), Arc::clone(&written));
            let mut pauses = random(lane.unsigned_abs());
            tokio::spawn(async move {
                for seq in (0..rounds).map(|round| round * LANES + lane + 1) {
                    write(&reads, lane, seq, &mut pauses).await;
                    written[usize::try_from(lane).unwrap()].store(seq, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    stop.store(true, Ordering::Relaxed);
    let mut checked = 0;
    for reader in readers {
        checked += reader.await.unwrap();
    }
    assert!(checked > 100, "only {checked} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_one_key_asks_postgres_once() {
    let reads = Reads::start(true, &[("LEADPULSE_LOG_LEVEL", "info,sqlx=debug")]).await;
    reads.fill(2000).await;
    assert_eq!(reads.get("/v1/leads/9002/1").await.status, 200);
    let crowd = (0..200).map(|_| reads.get("/v1/leads?limit=200&q=lead"));
    let answers = futures_util::future::join_all(crowd).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.body == answers[0].body));
    // One makes it, and the others say that they waited for it, or came later.
    let said = |what: &str| {
        answers.iter().filter(|answer| answer.header("cache-status") == Some(what)).count()
    };
    let (made, waited) = (said("memory; fwd=miss; stored"), said("memory; fwd=miss; collapsed"));
    assert_eq!((made, made + waited + said("memory; hit")), (1, 200));
    assert!(waited > 0);
    let log = reads.api.log_text();
    let asked = log
        .lines()
        .filter(|line| line.contains("sqlx::query") && line.contains("search_form"))
        .count();
    assert_eq!(asked, 1);
}

/// The clock ends an answer under a crowd: each time it is made anew once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_on_an_answer_that_has_got_old_asks_postgres_once() {
    let environment = [("LEADPULSE_LOG_LEVEL", "info,sqlx=debug"), ("CACHE_TTL_SECONDS", "3")];
    let reads = Reads::start(false, &environment).await;
    reads.fill(2000).await;
    let path = "/v1/leads?limit=200&q=lead";
    let asked = || {
        let log = reads.api.log_text();
        log.lines()
            .filter(|line| line.contains("sqlx::query") && line.contains("search_form"))
            .count()
    };
    assert_eq!(reads.get(path).await.status, 200);
    // While an old answer still serves, and when it does not serve any more. Nobody asks meanwhile: to look
    // would renew it.
    let mut round = 1;
    for pause in [3.4, 3.4, 11.0] {
        tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        let began = Instant::now();
        let crowd = (0..300).map(|_| reads.get(path));
        let answers = futures_util::future::join_all(crowd).await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        wait_until("it is made anew", PATIENCE, async || asked() > round).await;
        // A crowd that takes longer than the answer is fresh asks again, and should.
        let again = usize::try_from(began.elapsed().as_millis() / 2700).unwrap();
        assert!((round + 1..=round + 1 + again).contains(&asked()), "after {pause} s");
        round = asked();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_shares_a_failure_too_and_who_comes_later_does_not() {
    let reads = Arc::new(Reads::start(false, &[]).await);
    reads.fill(10).await;
    let pool = &reads.ground.database.pool;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock table lead_fact in access exclusive mode").execute(&mut *lock).await.unwrap();
    let crowd = (0..200).map(|_| {
        let reads = Arc::clone(&reads);
        tokio::spawn(async move { reads.get("/v1/leads?min_amount=1").await })
    });
    let crowd: Vec<_> = crowd.collect();
    wait_until("the first one has waited until all are there", PATIENCE, async || {
        sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database()
                 and wait_event_type = 'Lock' and now() - query_start > interval '2 s')",
        )
        .fetch_one(pool)
        .await
        .unwrap()
    })
    .await;
    sqlx::query("alter table lead_fact rename column name to gone")
        .execute(&mut *lock)
        .await
        .unwrap();
    lock.commit().await.unwrap();
    for answer in crowd {
        assert_eq!(answer.await.unwrap().status, 500);
    }
    let failures = || reads.api.log_text().matches("query failed").count();
    assert!(failures() <= 3, "{} questions to Postgres", failures());
    sqlx::query("alter table lead_fact rename column gone to name").execute(pool).await.unwrap();
    assert_eq!(reads.get("/v1/leads?min_amount=1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_hangs_is_told_in_time_and_the_next_read_succeeds() {
    let reads = Reads::start(false, &[("LEADPULSE_POSTGRES_MAX_CONNECTIONS", "3")]).await;
    reads.fill(10).await;
    let mut lock = reads.ground.database.pool.begin().await.unwrap();
    sqlx::query("lock table lead_fact in access exclusive mode").execute(&mut *lock).await.unwrap();
    let started = std::time::Instant::now();
    let paths: Vec<String> = (0..40).map(|n| format!("/v1/leads?min_amount={n}")).collect();
    let answers = futures_util::future::join_all(paths.iter().map(|path| reads.get(path))).await;
    for answer in answers {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.header("retry-after").is_some());
    }
    assert!(started.elapsed() < Duration::from_secs(9), "{:?}", started.elapsed());
    lock.rollback().await.unwrap();
    assert_eq!(reads.get("/v1/leads").await.status, 200);
}

/// A machine that stands still: not even the server's own time-outs come. Each product's dashboards are told in
/// the form that they know.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stands_still_is_told_to_both_products_in_their_forms() {
    let reads = Arc::new(Reads::start(false, &[]).await);
    reads.fill(10).await;
    let pool = &reads.ground.database.pool;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock table lead_fact in access exclusive mode").execute(&mut *lock).await.unwrap();
    let ask = |path: &'static str| {
        let reads = Arc::clone(&reads);
        tokio::spawn(async move {
            let key = reads.key.clone();
            reads.get_as(&key, path, &[("x-api-key", &key)]).await
        })
    };
    let (new, earlier) = ("/v1/leads?limit=7", "/outcomes/summary?windowDays=7");
    let answers = (ask(new), ask(earlier));
    let waiting = "select pid from pg_stat_activity where datname = current_database()
        and application_name = 'query-api' and wait_event_type = 'Lock'";
    wait_until("both are with Postgres", PATIENCE, async || {
        sqlx::query_scalar::<_, i32>(waiting).fetch_all(pool).await.unwrap().len() == 2
    })
    .await;
    let backends: Vec<i32> = sqlx::query_scalar(waiting).fetch_all(pool).await.unwrap();
    let signal = |name: &str| {
        let pids = backends.iter().map(ToString::to_string);
        let sent = std::process::Command::new("kill").arg(name).args(pids).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    let (of_new, of_earlier) = (answers.0.await, answers.1.await);
    signal("-CONT");
    let (of_new, of_earlier) = (of_new.unwrap(), of_earlier.unwrap());
    assert_eq!((of_new.status, of_earlier.status), (503, 503), "{of_new:?} {of_earlier:?}");
    assert_eq!(of_new.header("content-type"), Some("application/problem+json"));
    assert_eq!(of_earlier.header("content-type"), Some("application/json"));
    assert_eq!(of_earlier.json()["ok"], false, "{of_earlier:?}");
    assert!(of_earlier.header("retry-after").is_some());
    lock.rollback().await.unwrap();
    for path in [new, earlier] {
        assert_eq!(ask(path).await.unwrap().status, 200);
    }
}

/// A client that goes away takes its read with it, wherever that is: also where a transaction is being begun,
/// of which the pool would not know.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_no_transaction_in_the_pool() {
    let reads = Reads::start(false, &[("LEADPULSE_POSTGRES_MAX_CONNECTIONS", "4")]).await;
    reads.fill(10).await;
    let address = reads.api.url().trim_start_matches("http://").to_owned();
    let open = "select count(*) from pg_stat_activity where datname = current_database()
         and application_name = 'query-api' and (state = 'active' or state like 'idle in transaction%')";
    for n in 0_u32..400 {
        let mut socket = tokio::net::TcpStream::connect(&address).await.unwrap();
        let (key, amount) = (&reads.key, f64::from(n) / 1e6);
        let request = format!(
            "GET /v1/leads?min_amount={amount} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        // The pauses go through all steps of a read; a timer's steps are too large for that.
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_micros(u64::from(n) * 10) {
            std::hint::spin_loop();
        }
        drop(socket);
        wait_until("no transaction is open", Duration::from_secs(5), async || {
            let pool = &reads.ground.database.pool;
            sqlx::query_scalar::<_, i64>(open).fetch_one(pool).await.unwrap() == 0
        })
        .await;
    }
}
