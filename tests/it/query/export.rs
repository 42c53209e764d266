//! Exports: the same leads as the list, in a file that a spreadsheet can open safely.

use std::time::Duration;

use tests::harness::{PATIENCE, wait_until};

use super::fixture::{METRICS, Reads};

#[tokio::test(flavor = "multi_thread")]
async fn the_file_has_all_leads_of_the_list_and_no_formula() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(5000).await;
    reads.run("update lead_fact set name = '=1+1;\"a\"' where item_id = $1", 1).await;
    let file = reads.get("/v1/export/leads.csv?bom=true&lifecycle=all").await;
    assert_eq!(file.status, 200);
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8"));
    let lines: Vec<&str> = file.body.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), 5001);
    assert!(lines[0].starts_with("\u{feff}board_id,item_id,name,"), "{}", lines[0]);
    assert!(lines[1].starts_with("9002,1,\"'=1+1;\"\"a\"\"\","), "{}", lines[1]);
    assert!(lines[5000].starts_with("9001,5000,Lead 5000,"), "{}", lines[5000]);
    let won = reads.get("/v1/export/leads.csv?lifecycle=all&state=won&order=asc").await;
    assert_eq!(won.body.lines().count(), 2501);
    assert_eq!(reads.get("/v1/export/leads.csv?limit=3").await.status, 400);
    let key = reads.ground.create_key("demo", &["export:read"]);
    assert_eq!(reads.get_as(&key, "/v1/export/leads.csv", &[]).await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leaderboard_is_a_table_too() {
    let reads = Reads::start(false, &[]).await;
    reads.run(METRICS, 3).await;
    let file =
        reads.get("/v1/export/leaderboard.csv?window=7d&sort=deals_amount_sum&limit=2").await;
    let lines: Vec<&str> = file.body.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[1].starts_with("1,7003,7003,7,3,"), "{}", lines[1]);
}

/// A file of more than what the sockets hold on the way, of which the client has read the beginning.
async fn begun(reads: &Reads) -> (reqwest::Response, Vec<u8>) {
    let mut file = begun_as(reads, &reads.key, "/v1/export/leads.csv?lifecycle=all").await;
    let beginning = file.chunk().await.unwrap().unwrap().to_vec();
    (file, beginning)
}

/// The rest of it; an error where it breaks off.
async fn rest(mut file: reqwest::Response, mut text: Vec<u8>) -> Result<String, String> {
    loop {
        match file.chunk().await {
            Ok(Some(chunk)) => text.extend(chunk),
            Ok(None) => return Ok(String::from_utf8(text).unwrap()),
            Err(_) => return Err(String::from_utf8_lossy(&text).into_owned()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_of_one_instant_while_leads_move() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(100_000).await;
    let (file, beginning) = begun(&reads).await;
    // The last ones become the first, to where the file has been already, and one is new.
    reads
        .run("update lead_fact set entered_at = now(), name = 'moved' where item_id > $1", 99_900)
        .await;
    reads.run("update lead_fact set item_id = -1 where item_id = $1", 99_000).await;
    let text = rest(file, beginning).await.expect("the whole file");
    let ids: Vec<i64> =
        text.lines().skip(1).map(|line| line.split(',').nth(1).unwrap().parse().unwrap()).collect();
    assert_eq!(ids, (1..=100_000).collect::<Vec<_>>());
    assert!(!text.contains("moved"));
}

/// Until nobody reads the tables: what a rebuild's swap waits for.
async fn until_nothing_is_read(reads: &Reads) {
    wait_until("the tables are locked", PATIENCE, async || {
        let swap = "begin; set local lock_timeout = '30ms'; lock table lead_fact in access exclusive mode; commit";
        let mut connection = reads.ground.database.pool.acquire().await.unwrap();
        let locked = sqlx::raw_sql(swap).execute(&mut *connection).await.is_ok();
        sqlx::raw_sql("rollback").execute(&mut *connection).await.unwrap();
        locked
    })
    .await;
}

/// A snapshot is in the way of vacuum and of a rebuild's swap: it must not last as long as its client.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_gets_the_whole_file_and_keeps_neither_a_swap_nor_other_files_waiting() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(100_000).await;
    let mut files = Vec::new();
    for _ in 0..3 {
        files.push(begun(&reads).await);
        files.push(begun(&reads).await);
        until_nothing_is_read(&reads).await;
    }
    reads.run("update lead_fact set name = 'later' where item_id <> $1", 0).await;
    for (file, beginning) in files {
        let text = rest(file, beginning).await.expect("the whole file");
        assert_eq!(text.lines().count(), 100_001);
        assert!(!text.contains("later"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_files_at_once_than_there_are_connections_for_are_refused() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(10).await;
    let mut lock = reads.ground.database.pool.begin().await.unwrap();
    sqlx::query("lock table lead_fact in access exclusive mode").execute(&mut *lock).await.unwrap();
    let ask = || reads.get("/v1/export/leads.csv");
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    for file in [first, second, third] {
        assert_eq!((file.status, file.header("retry-after")), (503, Some("1")), "{file:?}");
    }
    lock.rollback().await.unwrap();
    assert_eq!(ask().await.status, 200);
}

/// Of several orgs none has all the connections for exports.
#[tokio::test(flavor = "multi_thread")]
async fn an_org_that_reads_many_files_keeps_no_other_org_waiting() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(10).await;
    let other = reads.ground.create_key("other", &[]);
    let pool = &reads.ground.database.pool;
    let mut lock = pool.begin().await.unwrap();
    sqlx::query("lock table lead_fact in access exclusive mode").execute(&mut *lock).await.unwrap();
    let waiting = async || -> i64 {
        let sql = "select count(*) from pg_stat_activity
            where datname = current_database() and application_name = 'query-api' and wait_event_type = 'Lock'";
        sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
    };
    let ask = |key: &str| {
        let request = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = request.get(format!("{}/v1/export/leads.csv", reads.api.url()));
        tokio::spawn(request.bearer_auth(key).send())
    };
    let mine = [ask(&reads.key), ask(&reads.key), ask(&reads.key)];
    wait_until("two are being read", PATIENCE, async || waiting().await == 2).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(waiting().await, 2, "the last connection is for others");
    let theirs = ask(&other);
    wait_until("another org's is, too", PATIENCE, async || waiting().await == 3).await;
    lock.rollback().await.unwrap();
    assert_eq!(theirs.await.unwrap().unwrap().status(), 200);
    let mut read = 0;
    for file in mine {
        read += usize::from(file.await.unwrap().unwrap().status() == 200);
    }
    assert!(read >= 2, "{read}");
}

async fn begun_as(reads: &Reads, key: &str, path: &str) -> reqwest::Response {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build();
    let url = format!("{}{path}", reads.api.url());
    let file = client.unwrap().get(url).bearer_auth(key).send().await.unwrap();
    assert_eq!(file.status(), 200);
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_has_what_was_asked_for_also_where_the_position_has_gone_back() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(10).await;
    reads.applied(20).await;
    for path in ["/v1/export/leads.csv?min_seq=20", "/v1/leads?min_seq=20"] {
        assert_eq!(reads.get(path).await.status, 200, "{path}");
    }
    reads.applied(5).await;
    reads.publish().await;
    for path in ["/v1/export/leads.csv?min_seq=20", "/v1/leads?min_seq=20&limit=7"] {
        let behind = reads.get(path).await;
        assert_eq!((behind.status, behind.header("retry-after")), (503, Some("1")), "{behind:?}");
        assert_eq!(behind.json()["applied_seq"], 5, "{path}");
    }
}

/// What a client does not take lies on the disk: no more of it than allowed, and no longer than a client may
/// be silent.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_nobody_takes_fill_the_disk_to_its_bound_and_for_a_while() {
    let bounds = [
        ("LEADPULSE_QUERY_API_EXPORT_DISK_MIB", "60"),
        ("LEADPULSE_QUERY_API_TRANSFER_SILENCE_MS", "15000"),
    ];
    let reads = Reads::start(false, &bounds).await;
    reads.fill(100_000).await;
    let (silent, beginning) = begun(&reads).await;
    until_nothing_is_read(&reads).await;
    let (file, text) = begun(&reads).await;
    let text = rest(file, text).await.expect_err("there was no room for all of it");
    assert!(text.lines().count() < 100_000);
    assert!(reads.api.log_text().contains("`query_api.export_disk_mib` is used up"));
    wait_until("the silent client's file is gone", PATIENCE, async || {
        reads.api.log_text().contains("its client takes nothing")
    })
    .await;
    rest(silent, beginning).await.expect_err("the file pretends to be whole");
    let (file, text) = begun(&reads).await;
    assert_eq!(rest(file, text).await.expect("the whole file").lines().count(), 100_001);
}
