//! What runs where, for people and, as `.local/run.json`, for other tools.

use anyhow::Result;
use serde_json::json;

use super::{plan::Plan, services::Services, stack::Stack};
use crate::{
    local::{self, Local},
    programs::SERVICES,
    say,
    servers::{Binaries, Server},
};

pub(super) struct Running<'a> {
    pub(super) services: &'a Services,
    pub(super) plan: &'a Plan,
    pub(super) secret: &'a str,
    pub(super) key: &'a str,
    pub(super) binaries: &'a Binaries,
}

/// Reads worth seeing: what each shows, and its path and query.
fn reads(demo: bool) -> [(&'static str, &'static str); 4] {
    let by_name = ("leads whose name has כהן (Cohen)", "/v1/leads?q=%D7%9B%D7%94%D7%9F&limit=3");
    [
        ("the best of 30 days", "/v1/agents/leaderboard?window=30d&sort=closed_won_count&limit=5"),
        ("30 days against the 30 before", "/v1/kpis/summary?window=30d&compare=previous"),
        ("the latest deals", "/v1/leads?state=won&date_field=closed_won&limit=5"),
        if demo { by_name } else { ("the newest leads", "/v1/leads?limit=3") },
    ]
}

impl Running<'_> {
    pub(super) async fn show(&self, stack: &Stack, local: &Local) -> Result<()> {
        let Self { services, plan, key, .. } = self;
        say::line("");
        for service in SERVICES {
            say::line(&format!("{service:<10} {}", services.url(service)));
        }
        let servers =
            [("postgres", &stack.postgres), ("nats", &stack.nats), ("redis", &stack.redis)];
        for (name, server) in servers {
            if let Some(server) = server {
                say::line(&format!("{name:<10} {}", server.url()));
            }
        }
        say::line(&format!(
            "{:<10} {}/webhooks/monday/{}",
            "webhooks",
            services.url("ingest"),
            plan.source
        ));
        say::line(&format!("{:<10} {key}  (org {}, all scopes)", "API key", plan.org));
        say::line("");
        let api = services.url("query-api");
        for (what, path) in reads(plan.demo) {
            let said = match services.get(key, path).await {
                Ok((200, took)) => format!("{:.1} ms", took.as_secs_f64() * 1000.0),
                Ok((status, _)) => format!("answers {status}"),
                Err(error) => format!("{error:#}"),
            };
            say::line(&format!("# {what} ({said})"));
            say::line(&format!("curl -s -H 'Authorization: Bearer {key}' '{api}{path}'"));
        }
        say::line(
            "# how is it, what is wrong, and what to type? (`projector --help` has the rest)",
        );
        say::line(&services.by_hand("projector", "status"));
        say::line("");
        say::line("all of this is in .local/run.json; the services' logs are in .local/log");
        local::write(&local.run_file(), &self.as_json(stack))
    }

    fn as_json(&self, stack: &Stack) -> serde_json::Value {
        let Self { services, plan, secret, key, binaries } = self;
        let url = |server: &Option<Server>| server.as_ref().map(Server::url).map(str::to_owned);
        let pid = |server: &Option<Server>| server.as_ref().map(Server::pid);
        let redis = binaries.redis.as_ref();
        json!({
            "ingest_url": services.url("ingest"),
            "projector_url": services.url("projector"),
            "query_api_url": services.url("query-api"),
            "database_url": url(&stack.postgres),
            "nats_url": url(&stack.nats),
            "nats_monitor_url": stack.nats_monitor_url(),
            "redis_url": url(&stack.redis),
            "org": plan.org,
            "api_key": key,
            "source": plan.source,
            "source_secret": secret,
            "pids": {
                "supervisor": std::process::id(),
                "postgres": pid(&stack.postgres),
                "nats": pid(&stack.nats),
                "redis": pid(&stack.redis),
                "ingest": stack.pid("ingest"),
                "projector": stack.pid("projector"),
                "query_api": stack.pid("query-api"),
            },
            "servers": {
                "postgres": binaries.postgres.version.to_string(),
                "nats": binaries.nats.version.to_string(),
                "redis": redis.map(|redis| redis.version.to_string()),
            },
        })
    }
}
