//! All addresses on one screen, and what happens to every request.

mod observe;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};
use leadpulse_service::health::Health;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    agents::{Agent, Agents, Leaderboard},
    consistency::consistency,
    export::{LeaderboardCsv, leads_csv},
    kpis::{Funnel, Industries, Summary, Timeseries, outcomes},
    leads::{Lead, Leads, Timeline},
    live::stream,
    meta::Meta,
    openapi::{docs, openapi},
    ops,
    problem::Problem,
    read::read,
    search::Search,
    state::App,
    users::Users,
};

async fn only_post() -> Problem {
    Problem::MethodNotAllowed("POST")
}

pub(crate) fn routes(app: Arc<App>, health: &Health) -> Router {
    let reads = Router::new()
        .route("/v1/leads", get(read::<Leads>))
        .route("/v1/leads/{board_id}/{item_id}", get(read::<Lead>))
        .route("/v1/leads/{board_id}/{item_id}/timeline", get(read::<Timeline>))
        .route("/v1/agents", get(read::<Agents>))
        .route("/v1/agents/{agent_id}", get(read::<Agent>))
        .route("/v1/agents/leaderboard", get(read::<Leaderboard>))
        .route("/v1/kpis/summary", get(read::<Summary>))
        .route("/v1/kpis/funnel", get(read::<Funnel>))
        .route("/v1/kpis/timeseries", get(read::<Timeseries>))
        .route("/v1/industries", get(read::<Industries>))
        .route("/v1/search", get(read::<Search>))
        .route("/v1/users", get(read::<Users>))
        .route("/v1/meta", get(read::<Meta>))
        .route("/v1/export/leads.csv", get(leads_csv))
        .route("/v1/export/leaderboard.csv", get(read::<LeaderboardCsv>))
        .route("/v1/stream", get(stream))
        .route("/v1/consistency", get(consistency))
        .route("/outcomes/summary", get(outcomes))
        .route("/ops/status", get(ops::status_of))
        .route("/ops/dead-letters", get(ops::letters))
        .route("/ops/dead-letters/{seq}", get(ops::letter))
        .route("/ops/dead-letters/retry", post(ops::retry).fallback(only_post))
        .route("/ops/dead-letters/skip", post(ops::skip).fallback(only_post))
        .route(
            "/ops/leads/{board_id}/{item_id}/rebuild",
            post(ops::rebuild_lead).fallback(only_post),
        )
        .route("/ops/explain/leads/{board_id}/{item_id}", get(ops::explain_lead))
        .route("/ops/explain/agents/{agent_id}", get(ops::explain_agent))
        .route("/ops/audit", get(ops::record))
        .route("/openapi.json", get(openapi))
        .route("/docs", get(docs))
        .with_state(app);
    reads
        .merge(health.routes())
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed("GET, HEAD"))
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::observe))
}
