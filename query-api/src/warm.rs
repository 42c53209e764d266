//! What a new process does before it says that it is ready: it opens its connections, learns the versions,
//! and answers what dashboards ask first. So nobody's first read pays for a cold start.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use leadpulse_service::config::Org;
use tokio::time::{Instant, timeout};
use tracing::{debug, info};

use crate::{
    agents::Leaderboard,
    auth::Caller,
    kpis::{Summary, Timeseries},
    leads::Leads,
    meta::Meta,
    params::Params,
    read::{Question, Read, find},
    state::App,
};

/// However slow it is, the service becomes ready after this.
const PATIENCE: Duration = Duration::from_secs(5);
/// Orgs whose first reads are answered beforehand.
const ORGS: usize = 100;

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
            for org in app.keys.orgs().take(ORGS) {
                tokio::join!(
                    first::<Leads>(app, org),
                    first::<Leaderboard>(app, org),
                    first::<Summary>(app, org),
                    first::<Timeseries>(app, org),
                    first::<Meta>(app, org),
                );
            }
        }),
    );
    let whole = done.await.is_ok();
    let duration_ms = started.elapsed().as_millis();
    info!(duration_ms, whole, "warmed up");
}

/// The read without parameters: what a dashboard shows first.
async fn first<R: Read>(app: &Arc<App>, org: &Arc<Org>) {
    let question = Question::<R>::new(Caller::of_the_service(org), Params::default());
    let answered = match question {
        Ok(question) => find(app, &Arc::new(question)).await.map(drop),
        Err(problem) => Err(problem),
    };
    if let Err(problem) = answered {
        debug!(%problem, family = R::FAMILY, "not answered beforehand");
    }
}
