//! Lists of leads: filters, pages, cursors.

use std::collections::BTreeSet;

use serde_json::Value;

use super::fixture::Reads;

fn ids(page: &Value) -> Vec<i64> {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["item_id"].as_str().unwrap().parse().unwrap()).collect()
}

/// All ids of a list, page by page.
async fn walk(reads: &Reads, path: &str) -> Vec<i64> {
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = reads.read(&format!("{path}{cursor}")).await;
        found.extend(ids(&page));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return found,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_give_every_lead_once_in_either_order_also_while_others_are_inserted() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(100).await;
    let newest_first = walk(&reads, "/v1/leads?limit=7").await;
    let expected: Vec<i64> = (1..=100).filter(|n| n % 4 != 3).collect();
    assert_eq!(newest_first, expected, "deleted ones are not listed");
    let mut oldest_first = walk(&reads, "/v1/leads?limit=200&order=asc").await;
    oldest_first.reverse();
    assert_eq!(oldest_first, expected);

    let page = reads.read("/v1/leads?limit=10").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    reads.run("update lead_fact set entered_at = now() where item_id = $1", 100).await;
    let next = reads.read(&format!("/v1/leads?limit=10&cursor={cursor}")).await;
    let seen: BTreeSet<i64> = ids(&page).into_iter().collect();
    assert!(ids(&next).iter().all(|id| !seen.contains(id)));
    assert_eq!(ids(&next)[0], expected[10]);
}

/// Their index has weeks: the order within one, and from one to the next, is the pages' own.
#[tokio::test(flavor = "multi_thread")]
async fn leads_by_their_last_activity_come_in_its_order_in_whatever_pages() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(100).await;
    // In another order than they came, over ten weeks, two at each instant, and one in ten without any.
    reads
        .run(
            "update lead_fact set last_activity_at = case when item_id % 10 > 0 then
                 '2026-03-02T00:00:00Z'::timestamptz + item_id * 37 % 101 / 2 * interval '33 h' end
             where item_id <= $1",
            100,
        )
        .await;
    let expected: Vec<i64> = sqlx::query_scalar(
        "select item_id from lead_fact where last_activity_at is not null
         order by last_activity_at desc, board_id desc, item_id desc",
    )
    .fetch_all(&reads.ground.database.pool)
    .await
    .unwrap();
    assert_eq!(expected.len(), 90);
    let path = "/v1/leads?lifecycle=all&date_field=last_activity";
    assert_eq!(walk(&reads, &format!("{path}&limit=7")).await, expected);
    let mut oldest_first = walk(&reads, &format!("{path}&limit=9&order=asc")).await;
    oldest_first.reverse();
    assert_eq!(oldest_first, expected);
    let (from, to) = ("2026-03-10T12:00:00Z", "2026-04-20T03:00:00Z");
    let span = walk(&reads, &format!("{path}&limit=5&from={from}&to={to}")).await;
    let within: Vec<i64> = sqlx::query_scalar(
        "select item_id from lead_fact where last_activity_at >= $1::timestamptz and last_activity_at < $2::timestamptz
         order by last_activity_at desc, board_id desc, item_id desc",
    )
    .bind(from)
    .bind(to)
    .fetch_all(&reads.ground.database.pool)
    .await
    .unwrap();
    assert!(within.len() > 20 && span == within, "{span:?}\n{within:?}");
}

/// `lower` of such a database knows ASCII only.
#[tokio::test(flavor = "multi_thread")]
async fn an_industry_is_found_in_any_case_whatever_the_locale() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(4).await;
    reads
        .run(
            "update lead_fact set industry = (array['ÉNERGIE verte', 'Énergie Verte', 'Energie', null])[item_id],
                 lifecycle = 'active' where item_id <= $1",
            4,
        )
        .await;
    sqlx::query("alter table lead_fact alter column industry type text collate \"C\"")
        .execute(&reads.ground.database.pool)
        .await
        .unwrap();
    for asked in ["%C3%A9nergie+verte", "%C3%89NERGIE+VERTE", "%C3%89nergie+verte"] {
        assert_eq!(walk(&reads, &format!("/v1/leads?industry={asked}")).await, [1, 2], "{asked}");
    }
    assert_eq!(walk(&reads, "/v1/leads?industry=ENERGIE&industry=Unknown").await, [3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_combine_and_a_cursor_is_good_only_for_its_own() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(100).await;
    let ids_of = async |query: &str| {
        let mut found = walk(&reads, &format!("/v1/leads?limit=200&{query}")).await;
        found.sort_unstable();
        found
    };
    let all = |keep: fn(&i64) -> bool| (1..=100_i64).filter(keep).collect::<Vec<_>>();
    assert_eq!(ids_of("lifecycle=all").await, all(|_| true));
    assert_eq!(ids_of("lifecycle=deleted").await, all(|n| n % 4 == 3));
    assert_eq!(
        ids_of("lifecycle=all&agent_id=7001&agent_id=7002").await,
        all(|n| matches!(n % 10, 1 | 2))
    );
    assert_eq!(
        ids_of("lifecycle=all&board_id=9002&state=won&industry=health&industry=unknown").await,
        all(|n| n % 2 == 1 && *n <= 50 && n % 3 != 0)
    );
    assert_eq!(ids_of("lifecycle=all&status=Won&min_amount=10.5&max_amount=12").await, [10, 11]);
    assert_eq!(ids_of("lifecycle=all&status=2").await, all(|n| *n <= 50));
    assert_eq!(ids_of("lifecycle=all&q=LEAD+1").await, all(|n| n.to_string().starts_with('1')));
    assert_eq!(
        ids_of("lifecycle=all&q=%25").await,
        [0_i64; 0],
        "a pattern's letters stand for themselves"
    );
    assert_eq!(ids_of("lifecycle=all&date_field=closed_won").await, all(|n| *n <= 50));

    let page = reads.read("/v1/leads?limit=1&state=won").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let other = reads.get(&format!("/v1/leads?limit=1&state=open&cursor={cursor}")).await;
    assert_eq!(other.status, 400, "{other:?}");
    assert_eq!(other.json()["errors"][0]["parameter"], "cursor");
    let larger = reads.read(&format!("/v1/leads?limit=2&state=won&cursor={cursor}")).await;
    assert_eq!(ids(&larger).len(), 2, "the size of a page may change");
    let counted = format!("/v1/leads?limit=1&state=won&count=exact&cursor={cursor}");
    let all = ids_of("state=won").await.len();
    assert_eq!(reads.read(&counted).await["count"], all, "and whether all are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_is_written_as_the_api_promises() {
    let reads = Reads::start(false, &[]).await;
    reads.fill(4).await;
    reads
        .run(
            "insert into monday_user (org_id, user_id, name, occurred_at, event_id, last_seq)
             values ('demo', $1, 'דנה לוי', now(), 'x', 1)",
            7001,
        )
        .await;
    let lead = reads.read("/v1/leads/9002/1").await;
    assert_eq!(lead["board_id"], "9002");
    assert_eq!(lead["assigned_user_id"], "7001");
    assert_eq!(lead["agent_name"], "דנה לוי");
    assert_eq!(lead["deal_amount"], "1.5");
    assert_eq!(lead["response_seconds"], 30.0);
    assert_eq!(lead["time_to_close_seconds"], 50.0);
    let entered = lead["entered_at"].as_str().unwrap();
    assert!(entered.ends_with('Z') && entered.len() == "2026-03-02T10:00:00.000000Z".len());
    let unnamed = reads.read("/v1/leads/9001/2").await;
    assert_eq!(unnamed["agent_name"], "7002", "an unknown user shows as its id");
    assert_eq!(reads.get("/v1/leads/9001/1").await.status, 404);
    assert_eq!(reads.get("/v1/leads/x/1").await.status, 400);
}
