//! All addresses on one screen, and what happens to every request.

pub(crate) mod observe;

use std::sync::Arc;

use axum::{
    Router,
    handler::Handler,
    middleware,
    routing::{MethodRouter, get, post},
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

/// An operator's wish that changes something.
fn wish<H: Handler<T, Arc<App>>, T: 'static>(handler: H) -> MethodRouter<Arc<App>> {
    post(handler).fallback(only_post)
}

fn operations(app: &Arc<App>) -> Router<Arc<App>> {
    let left = middleware::from_fn_with_state(Arc::clone(app), ops::tell_what_is_left);
    Router::new()
        .route("/ops/status", get(ops::status_of))
        .route("/ops/dead-letters", get(ops::letters))
        .route("/ops/dead-letters/{seq}", get(ops::letter))
        .route("/ops/dead-letters/retry", wish(ops::retry))
        .route("/ops/dead-letters/skip", wish(ops::skip))
        .route("/ops/leads/{board_id}/{item_id}/rebuild", wish(ops::rebuild_lead))
        .route("/ops/explain/leads/{board_id}/{item_id}", get(ops::explain_lead))
        .route("/ops/explain/agents/{agent_id}", get(ops::explain_agent))
        .route("/ops/audit", get(ops::record))
        .merge(instance())
        .route_layer(left)
}

/// What is about the whole instance, for keys of no org.
fn instance() -> Router<Arc<App>> {
    use ops::instance::{change, copy, letters, look, rebuild};
    Router::new()
        .route("/ops/instance/status", get(look::status_of))
        .route("/ops/instance/checkpoint", get(look::checkpoint_of))
        .route("/ops/instance/checkpoint/set", wish(change::set_checkpoint))
        .route("/ops/instance/dead-letters", get(letters::list))
        .route("/ops/instance/dead-letters/{seq}", get(letters::show))
        .route("/ops/instance/dead-letters/retry", wish(letters::retry))
        .route("/ops/instance/dead-letters/skip", wish(letters::skip))
        .route("/ops/instance/pause", wish(change::pause))
        .route("/ops/instance/resume", wish(change::resume))
        .route("/ops/instance/replay", wish(change::replay))
        .route("/ops/instance/verify", wish(change::verify))
        .route("/ops/instance/rebuild", get(rebuild::status))
        .route("/ops/instance/rebuild/plan", get(rebuild::plan))
        .route("/ops/instance/rebuild/start", wish(rebuild::start))
        .route("/ops/instance/rebuild/swap", wish(rebuild::swap))
        .route("/ops/instance/rebuild/rollback", wish(rebuild::rollback))
        .route("/ops/instance/rebuild/abort", wish(rebuild::abort))
        .route("/ops/instance/rebuild/drop-archive", wish(rebuild::drop_archive))
        .route("/ops/instance/export", get(copy::export))
        .route(ops::instance::IMPORT, wish(copy::import))
        .route("/ops/instance/audit", get(look::record))
        .route("/ops/instance/audit/{id}", get(look::entry))
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
        .merge(operations(&app))
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
