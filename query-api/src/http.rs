//! All addresses on one screen, and what happens to every request.

mod observe;

use std::sync::Arc;

use axum::{Router, middleware, routing::get};
use leadpulse_service::health::Health;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    agents::{Agent, Agents, Leaderboard},
    kpis::{Funnel, Industries, Summary, Timeseries, outcomes},
    leads::{Lead, Leads},
    meta::Meta,
    problem::Problem,
    read::read,
    search::Search,
    state::App,
    users::Users,
};

pub(crate) fn routes(app: Arc<App>, health: &Health) -> Router {
    let reads = Router::new()
        .route("/v1/leads", get(read::<Leads>))
        .route("/v1/leads/{board_id}/{item_id}", get(read::<Lead>))
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
        .route("/outcomes/summary", get(outcomes))
        .with_state(app);
    reads
        .merge(health.routes())
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(CatchPanicLayer::custom(observe::panicked))
        .layer(middleware::from_fn(observe::observe))
}
