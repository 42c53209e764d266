//! What a new process does before it says that it is ready: it opens its connections, learns the versions,
//! and answers what dashboards asked of the processes before it, and what they ask first. So nobody's
//! first read pays for a cold start.

mod hot;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::try_join_all, stream};
use leadpulse_service::config::Org;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use crate::{
    agents::{Agent, Agents, Leaderboard},
    auth::Caller,
    cache::HotRead,
    kpis::{Funnel, Industries, Outcomes, Summary, Timeseries},
    leads::{Lead, Leads},
    meta::Meta,
    params::Params,
    read::{Question, Read, find},
    search::Search,
    state::App,
    users::Users,
};
pub(crate) use hot::keep;

/// However slow it is, the service becomes ready after this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Orgs whose first reads are answered beforehand.
const ORGS: usize = 100;
/// Answers that are made at the same time: more would only wait for each other.
const AT_ONCE: usize = 4;

pub(crate) async fn warm(app: &Arc<App>) {
    let started = Instant::now();
    let done = timeout(
        PATIENCE,
        Box::pin(async {
            let connections = app.pool.options().get_max_connections();
            // All at the same time, or it would be one again and again.
            if let Err(error) = try_join_all((0..connections).map(|_| app.pool.acquire())).await {
                debug!(%error, "not all connections are open");
            }
            while !app.versions.are_known() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let asked = hot::remembered(&app.pool).await.unwrap_or_else(|error| {
                debug!(%error, "what was asked most is not known");
                Vec::new()
            });
            let orgs: Vec<_> = app.keys.orgs().take(ORGS).collect();
            // The first screens of all orgs before the other windows of any.
            let screens = orgs.iter().flat_map(|org| first_screen(org));
            let windows = orgs.iter().flat_map(|org| other_windows(org));
            stream::iter(asked.into_iter().chain(screens).chain(windows))
                .for_each_concurrent(AT_ONCE, |asked| again(app, asked))
                .await;
        }),
    );
    let whole = done.await.is_ok();
    // What was answered first may be old by now, and all of it would be made anew at once.
    app.cache.be_lenient();
    let duration_ms = started.elapsed().as_millis();
    info!(duration_ms, whole, "warmed up");
}

/// The reads without parameters: what a dashboard shows first.
fn first_screen(org: &Org) -> impl Iterator<Item = HotRead> {
    [
        Leads::FAMILY,
        Leaderboard::FAMILY,
        Summary::FAMILY,
        Timeseries::FAMILY,
        Meta::FAMILY,
        Funnel::FAMILY,
        Industries::FAMILY,
        Agents::FAMILY,
        Users::FAMILY,
    ]
    .into_iter()
    .map(|family| HotRead::expected(org, family, String::new()))
    // Who may see e-mails gets another answer.
    .chain([HotRead { pii: true, ..HotRead::expected(org, Users::FAMILY, String::new()) }])
}

/// Where a dashboard's window can be chosen, each of them.
fn other_windows(org: &Org) -> impl Iterator<Item = HotRead> {
    org.windows.iter().flat_map(|days| {
        [Leaderboard::FAMILY, Summary::FAMILY, Funnel::FAMILY, Industries::FAMILY]
            .map(|family| HotRead::expected(org, family, format!("window={days}d")))
    })
}

/// What an earlier process was asked, or what this one may be.
async fn again(app: &Arc<App>, asked: HotRead) {
    let Some(org) = app.keys.org(&asked.org_id) else { return };
    let caller = Caller::of_the_service(&org, asked.pii);
    let params = || Params::new(Vec::new(), Some(&asked.question));
    match asked.family.as_str() {
        Leads::FAMILY => answer::<Leads>(app, &caller, params()).await,
        Lead::FAMILY => answer::<Lead>(app, &caller, params()).await,
        Agents::FAMILY => answer::<Agents>(app, &caller, params()).await,
        Agent::FAMILY => answer::<Agent>(app, &caller, params()).await,
        Leaderboard::FAMILY => answer::<Leaderboard>(app, &caller, params()).await,
        Summary::FAMILY => answer::<Summary>(app, &caller, params()).await,
        Funnel::FAMILY => answer::<Funnel>(app, &caller, params()).await,
        Timeseries::FAMILY => answer::<Timeseries>(app, &caller, params()).await,
        Industries::FAMILY => answer::<Industries>(app, &caller, params()).await,
        Outcomes::FAMILY => answer::<Outcomes>(app, &caller, params()).await,
        Search::FAMILY => answer::<Search>(app, &caller, params()).await,
        Users::FAMILY => answer::<Users>(app, &caller, params()).await,
        Meta::FAMILY => answer::<Meta>(app, &caller, params()).await,
        // Exports and timelines are not kept waiting for.
        _ => {}
    }
}

async fn answer<R: Read>(app: &Arc<App>, caller: &Caller, params: Params) {
    let answered = match Question::<R>::new(caller.clone(), params) {
        Ok(question) => find(app, &Arc::new(question)).await.map(drop),
        Err(problem) => Err(problem),
    };
    if let Err(problem) = answered {
        debug!(%problem, family = R::FAMILY, "not answered beforehand");
    }
}
