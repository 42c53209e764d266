//! The whole comparison: everything that `query-api` says against everything that the naive
//! implementation computes from the stream.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::Value;

use super::{Answer, App, Message, answers};
use crate::naive::{
    AgentMetrics, Arrival, Kpis, Lead, Lifecycle, Micros, Window, World, agents, rfc3339,
};

/// Fails unless every read model has the stream up to `seq` and says what the page says.
pub async fn agree(app: &App, seq: u64) {
    let stream = app.ground.stream().await;
    assert_eq!(stream.last().map(|message| message.seq), Some(seq), "the stream's end");
    let arrivals: Vec<Arrival> = stream.iter().map(Message::arrival).collect();
    let world = World::of(&arrivals, &app.ground.rules);
    let checked = Check { app, seq, world };
    checked.leads().await;
    checked.single_leads().await;
    for days in &app.ground.rules.windows_days {
        checked.leaderboard(*days).await;
        checked.ranking(*days).await;
        checked.kpis(*days).await;
    }
}

struct Check<'a> {
    app: &'a App,
    seq: u64,
    world: World,
}

impl Check<'_> {
    async fn get(&self, path: &str) -> (Value, Micros) {
        let answer: Answer = self.app.get_at(path, self.seq).await;
        let as_of = answer.header("leadpulse-as-of").expect("every read tells its instant");
        (answer.json(), answers::instant(&Value::from(as_of)))
    }

    /// Every lead, page by page.
    async fn leads(&self) {
        let found = self.pages("/v1/leads?lifecycle=all&limit=17").await;
        let mut leads = BTreeMap::new();
        for item in &found {
            let lead = answers::lead(item);
            self.check_additions(item, &lead);
            let known = leads.insert((lead.board_id, lead.item_id), lead);
            assert!(known.is_none(), "listed twice: {known:?}");
        }
        let missing = self.world.leads.keys().find(|key| !leads.contains_key(*key));
        assert_eq!(missing, None, "not listed");
        for (key, lead) in &leads {
            assert_eq!(Some(lead), self.world.leads.get(key), "left: the API, right: the page");
        }
        let entered: Vec<Micros> =
            found.iter().map(|item| answers::lead(item).entered_at).collect();
        assert!(entered.is_sorted_by(|a, b| a >= b), "the latest entry comes first");

        let usual = self.pages("/v1/leads?limit=200").await.len();
        let living = |lead: &&Lead| lead.lifecycle != Lifecycle::Deleted;
        assert_eq!(usual, self.world.leads.values().filter(living).count(), "leads not deleted");
    }

    async fn pages(&self, path: &str) -> Vec<Value> {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let (page, _) = self.get(&format!("{path}{cursor}")).await;
            items.extend(page["items"].as_array().expect("items").iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    fn check_additions(&self, item: &Value, lead: &Lead) {
        let name = lead.assigned_user_id.map(|id| self.world.name_of(id));
        assert_eq!(item["agent_name"].as_str(), name.as_deref(), "{item}");
        // What came before the entry took no time that means anything.
        let forward = |span: Option<Micros>| span.filter(|span| *span >= 0);
        answers::assert_seconds(&item["response_seconds"], forward(lead.response()), item);
        answers::assert_seconds(
            &item["time_to_close_seconds"],
            forward(lead.time_to_close()),
            item,
        );
    }

    async fn single_leads(&self) {
        for ((board, item), lead) in self.world.leads.iter().take(12) {
            let (found, _) = self.get(&format!("/v1/leads/{board}/{item}")).await;
            assert_eq!(&answers::lead(&found), lead, "left: the API, right: the page");
        }
    }

    async fn leaderboard(&self, days: u32) {
        let path = format!("/v1/agents/leaderboard?window={days}d&limit=200&min_n=0");
        let (board, now) = self.get(&path).await;
        let leads = self.world.all_leads();
        let mut found: Vec<i64> = Vec::new();
        for item in board["items"].as_array().expect("items") {
            let agent = answers::id(&item["agent_id"]).expect("an agent");
            let wanted = AgentMetrics::of(&leads, &self.app.ground.rules, agent, days, now);
            let context = format!("agent {agent}, {days} days before {}: {item}", rfc3339(now));
            answers::assert_metrics(item, &wanted, &context);
            answers::assert_momentum(item, &wanted, now, &context);
            assert_eq!(item["agent_name"], self.world.name_of(agent), "{context}");
            found.push(agent);
        }
        found.sort_unstable();
        let wanted: Vec<i64> = agents(&leads).into_iter().collect();
        assert_eq!(found, wanted, "the agents of the leaderboard");
    }

    /// By the metric, then by agent id; who has no value comes last. `min_n` leaves out the few.
    async fn ranking(&self, days: u32) {
        for (sort, order, min_n) in [
            ("conversion_rate", "desc", 0),
            ("deals_amount_sum", "desc", 0),
            ("median_response_seconds", "asc", 2),
            ("closed_won_count", "asc", 1),
        ] {
            let path = format!(
                "/v1/agents/leaderboard?window={days}d&limit=200&sort={sort}&order={order}&min_n={min_n}"
            );
            let (board, now) = self.get(&path).await;
            let found: Vec<(i64, u64)> = board["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|item| {
                    (answers::id(&item["agent_id"]).expect("an agent"), item["rank"].as_u64())
                })
                .map(|(agent, rank)| (agent, rank.expect("a rank")))
                .collect();
            let leads = self.world.all_leads();
            let mut wanted: Vec<(Option<Decimal>, i64)> = agents(&leads)
                .into_iter()
                .map(|agent| AgentMetrics::of(&leads, &self.app.ground.rules, agent, days, now))
                .filter(|metrics| metrics.n_of(sort) >= min_n)
                .map(|metrics| (metrics.value_of(sort), metrics.agent_id))
                .collect();
            wanted.sort_by_key(|(value, agent)| {
                let up = if order == "desc" { value.map(|value| -value) } else { *value };
                (up.is_none(), up, *agent)
            });
            let wanted: Vec<(i64, u64)> = wanted.iter().map(|row| row.1).zip(1..).collect();
            assert_eq!(found, wanted, "{path}");
        }
    }

    async fn kpis(&self, days: u32) {
        let leads = self.world.all_leads();
        let path = format!("/v1/kpis/summary?window={days}d&compare=previous");
        let all = |window| Kpis::of(&leads, window);
        self.check_kpis(&path, days, all).await;
        for board in self.app.ground.rules.boards.iter().map(|board| board.id) {
            let of_board = |window| Kpis::of_board(&leads, board, window);
            self.check_kpis(&format!("{path}&board_id={board}"), days, of_board).await;
        }
        for industry in ["finance", "öl & gas", "unknown"] {
            let of_industry = |window| Kpis::of_industry(&leads, industry, window);
            let escaped = industry.replace(' ', "%20").replace('&', "%26").replace('ö', "%C3%B6");
            self.check_kpis(&format!("{path}&industry={escaped}"), days, of_industry).await;
        }
    }

    async fn check_kpis(&self, path: &str, days: u32, of: impl Fn(Window) -> Kpis) {
        let (found, now) = self.get(path).await;
        let window = Window::of_days(days, now);
        let context = format!("{path} at {}: {found}", rfc3339(now));
        answers::assert_kpis(&found["current"], &of(window), &format!("current of {context}"));
        let previous = of(window.previous());
        answers::assert_kpis(&found["previous"], &previous, &format!("previous of {context}"));
    }
}
