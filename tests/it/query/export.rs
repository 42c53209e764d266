//! Exports: the same leads as the list, in a file that a spreadsheet can open safely.

use std::time::Duration;

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

/// What a swap does to the tables, done by hand, while a client has read only the beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_a_rebuild_overtakes_ends_early_and_mixes_nothing() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(100_000).await;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build();
    let url = format!("{}/v1/export/leads.csv?lifecycle=all", reads.api.url());
    let mut file = client.unwrap().get(url).bearer_auth(&reads.key).send().await.unwrap();
    assert_eq!(file.status(), 200);
    let mut text = file.chunk().await.unwrap().unwrap().to_vec();
    let swap = "create schema old; create table made (like lead_fact including all);
        insert into made select * from lead_fact; update made set name = 'of another mapping';
        begin; alter table lead_fact set schema old; alter table made rename to lead_fact; commit";
    sqlx::raw_sql(swap).execute(&reads.ground.database.pool).await.unwrap();
    let broken = loop {
        match file.chunk().await {
            Ok(Some(chunk)) => text.extend(chunk),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broken, "the file pretends to be whole");
    assert!(!String::from_utf8_lossy(&text).contains("of another mapping"));
    assert_eq!(reads.get("/v1/export/leads.csv?q=another&lifecycle=all").await.status, 200);
}
