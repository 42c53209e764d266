//! A query-api over a schema that the projector has made and left; what stands in the tables is the test's.

use projector::fold::LeadState;
use serde_json::Value;
use tests::harness::{Answer, Ground, ORG, PATIENCE, Service, Setup, wait_until};

pub(super) struct Reads {
    pub(super) api: Service,
    pub(super) ground: Ground,
    pub(super) key: String,
}

impl Reads {
    pub(super) async fn start(redis: bool, environment: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment = environment.iter().map(own).collect();
        Self::start_with(Setup { redis, environment, ..Setup::default() }).await
    }

    /// On a Postgres that nobody else writes to the log of.
    pub(super) async fn start_with_own_postgres() -> Self {
        Self::start_with(Setup { redis: false, own_postgres: true, ..Setup::default() }).await
    }

    async fn start_with(setup: Setup) -> Self {
        let ground = Ground::prepare(setup).await.unwrap();
        let migrated = ground.run("projector", &["migrate"]);
        assert!(migrated.status.success(), "{migrated:?}");
        let api = ground.start("query-api").unwrap();
        api.wait_until_ready().await;
        let key = ground.create_key(ORG, &[]);
        let reads = Self { api, ground, key };
        reads.applied(0).await;
        reads.forget_what_was_read_at_the_start().await;
        reads
    }

    /// The service has answered the first reads already, over empty tables: a new version ends them.
    async fn forget_what_was_read_at_the_start(&self) {
        let key = self.ground.create_key(ORG, &[]);
        let path = "/v1/leads?min_amount=0.987654";
        self.get_as(&key, path, &[]).await;
        self.publish().await;
        wait_until("the new version is known", PATIENCE, async || {
            let answer = self.get_as(&key, path, &[]).await;
            answer.header("cache-status").is_some_and(|status| status.contains("fwd=miss"))
        })
        .await;
    }

    /// Says that everything up to `seq` is applied.
    pub(super) async fn applied(&self, seq: i64) {
        self.run(
            "insert into checkpoint (projection, lane, stream, stream_created_at, seq, fence)
             values ('main', 0, 'test', now(), $1, 1)
             on conflict (projection, lane) do update set seq = excluded.seq",
            seq,
        )
        .await;
    }

    /// Raises the org's version, as the projector does after a commit.
    pub(super) async fn publish(&self) {
        self.raise(0).await;
    }

    /// The same for AgentMetrics alone.
    pub(super) async fn publish_metrics(&self) {
        self.raise(1).await;
    }

    async fn raise(&self, of_metrics: i64) {
        self.run(
            "with raised as (
                 insert into org_version as known (org_id, version, of_metrics) values ('demo', 1, $1)
                 on conflict (org_id) do update set version = known.version + 1,
                     of_metrics = known.of_metrics + excluded.of_metrics
                 returning version)
             select pg_notify('leadpulse_version', 'demo:' || version) from raised",
            of_metrics,
        )
        .await;
    }

    /// Runs a statement that takes one number.
    pub(super) async fn run(&self, sql: &'static str, number: i64) {
        sqlx::query(sql).bind(number).execute(&self.ground.database.pool).await.unwrap();
    }

    /// `count` leads that no event is remembered of, of ten agents on two boards, one a minute back from now: the first half is won.
    pub(super) async fn fill(&self, count: i64) {
        sqlx::query(FILL)
            .bind(count)
            .bind(LeadState::default().encode())
            .execute(&self.ground.database.pool)
            .await
            .unwrap();
    }

    pub(super) async fn get_as(&self, key: &str, path: &str, more: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {key}");
        let headers = [&[("authorization", bearer.as_str())], more].concat();
        self.api.get(path, &headers).await.unwrap()
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.get_as(&self.key, path, &[]).await
    }

    /// The body of a read that succeeds.
    pub(super) async fn read(&self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "GET {path}: {answer:?}");
        answer.json()
    }
}

const FILL: &str = "
insert into lead_fact (org_id, board_id, item_id, name, group_id, status_id, status_label, assigned_user_id,
    assigned_at, deal_amount, industry, entered_at, entered_source, first_touch_at, last_activity_at, state,
    closed_won_at, closed_by_user_id, lifecycle, last_event_at, last_seq, fold_state)
select 'demo', 9001 + n % 2, n, 'Lead ' || n, 'topics', case when n * 2 <= $1 then 2 else 5 end,
    case when n * 2 <= $1 then 'Won' end, 7000 + n % 10, now() - n * interval '1 minute',
    case when n * 2 <= $1 then n + 0.5 end, (array['Finance', 'Health', null])[n % 3 + 1],
    now() - n * interval '1 minute', 'created', now() - n * interval '1 minute' + interval '30 s', now(),
    case when n * 2 <= $1 then 'won' else 'open' end,
    case when n * 2 <= $1 then now() - n * interval '1 minute' + interval '50 s' end,
    case when n * 2 <= $1 then 7000 + n % 10 end,
    (array['active', 'active', 'archived', 'deleted'])[n % 4 + 1], now(), n, $2
from generate_series(1, $1) as n";

/// Metrics of so many agents, in all windows.
pub(super) const METRICS: &str = "
insert into agent_metrics (org_id, agent_id, window_days, assigned_count, touched_count, cohort_won_count,
    conversion_rate, closed_won_count, period_conversion_rate, deals_amount_sum, deals_amount_count, avg_deal_size,
    median_response_seconds, median_time_to_close_seconds, time_to_close_count, hot_deals_count, is_hot,
    last_win_at, last_activity_at, active_leads, industries, computed_at, valid_until)
select 'demo', 7000 + n, days, n, n, 1, 1.0 / n, n, 1, n * 100.50, n, 100.5, n, n, n, 0, false,
    now() - interval '168 h', null, 1, '{}', now(), null
from generate_series(1, $1) as n, unnest(array[7, 30, 90]) as days";

/// So many users, of four names.
pub(super) const USERS: &str = "
insert into monday_user (org_id, user_id, name, email, kind, status, occurred_at, event_id, last_seq)
select 'demo', 7000 + n, (array['Dana Levi', 'דָּנָה לֵוִי', 'Danny 50%', 'Avi'])[(n - 1) % 4 + 1], 'a@example.com', 'member', 'active', now(), 'x', 1
from generate_series(1, $1) as n";

/// A dead letter of the org.
pub(super) const LETTER: &str = "
insert into dead_letter (projection, stream_created_at, seq, org_id, board_id, item_id, event_id, kind, reason, payload)
select 'main', now(), n, 'demo', 9002, n, 'e', 'update_name', 'Lead ' || n || ' of Dana', '{}' from generate_series(1, $1) as n";
