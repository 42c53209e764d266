//! The life of the service: it starts without Postgres and without Redis, says so, and recovers.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use leadpulse_service::{
    config::{self, Config},
    health::{Dependency, Health, Need},
    http, shutdown, telemetry,
};
use projector::{mapping::Mapping, ops::Tools};
use secrecy::ExposeSecret;
use sqlx::PgPool;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    applied::Applied,
    auth::Keys,
    cache::{Cache, Shared},
    consistency::Head,
    cursor::Signer,
    db,
    export::Exports,
    front::{Front, Meanings},
    http::routes,
    limits::Limits,
    live::Hub,
    state::{self, App},
    versions::Versions,
    warm::{keep, warm},
};

/// Connections for `/ops`.
const OPERATORS: u32 = 3;
/// Repairs by `/ops` at the same time.
const REPAIRS: usize = 4;
/// Answers that are made anew at the same time while the old ones are served.
const RENEWALS: usize = 4;
/// Between two looks at Postgres.
const LOOK: Duration = Duration::from_secs(1);

/// Serves until a signal comes, then lets requests in flight end.
pub async fn run(config: Config) -> Result<()> {
    telemetry::init(&config.log)?;
    let health = Health::new("query-api", telemetry::metrics()?);
    let pool = db::pool(&config.postgres).context("the Postgres URL can't be used")?;
    let shared = if config.redis.enabled {
        let dependency = health.dependency("redis", Need::Optional);
        Shared::new(&config.redis, dependency).context("the Redis URL can't be used")?
    } else {
        Shared::off()
    };
    let stop = shutdown::on_signals()?;
    let connections = usize::try_from(config.postgres.max_connections).unwrap_or(10);
    let head = Head::connect(config.nats.url.expose_secret()).await;
    // Some more than there are connections: one read has its statements sent while another's come back.
    let loads_limit = connections + connections / 2;
    let head = head.context("the NATS URL can't be used")?;
    let operators = config::Postgres { max_connections: OPERATORS, ..config.postgres.clone() };
    let operators = projector::store::pool(&operators).context("the Postgres URL can't be used")?;
    let exports = Exports::new(&config.postgres, config.query_api.export_disk_mib, &config.orgs);
    let exports = exports.context("the Postgres URL can't be used")?;
    let app = Arc::new(App {
        hub: Hub::default(),
        ops: Tools::new(Arc::new(config.clone()), operators, head.jetstream()),
        repairs: Arc::new(Semaphore::new(REPAIRS)),
        long_work: Arc::default(),
        head,
        mapping: Mapping::of(&config),
        stop: stop.clone(),
        loads: Semaphore::new(loads_limit),
        loads_limit,
        renewals: Arc::new(Semaphore::new(RENEWALS)),
        keys: Keys::new(&pool, state::orgs(&config.orgs)),
        cache: Cache::new(config.query_api.cache_ttl, Arc::clone(&shared)),
        meanings: Meanings::default(),
        versions: Versions::default(),
        applied: Applied::default(),
        cursors: Signer::default(),
        limits: Limits::new(config.query_api.rate_limit, config.query_api.org_rate_limit),
        pool: pool.clone(),
        exports,
    });
    let postgres = health.dependency("postgres", Need::Required);
    let nats = health.dependency("nats", Need::Optional);
    let listener = http::bind(config.query_api.listen, "query_api.listen").await?;

    let token = stop.clone();
    tokio::spawn(async move { shared.watch(token).await });
    let (follower, reads, token) = (Arc::clone(&app), pool.clone(), stop.clone());
    tokio::spawn(async move { follower.versions.follow(&reads, token).await });
    let (follower, token) = (Arc::clone(&app), stop.clone());
    tokio::spawn(async move { follower.keys.follow(token).await });
    let (teller, token) = (Arc::clone(&app), stop.clone());
    tokio::spawn(async move { teller.hub.run(&teller.versions, &teller.pool, token).await });
    tokio::spawn(watch(Arc::clone(&app), health.clone(), (postgres, nats), stop.clone()));

    let kept = tokio::spawn(keep(Arc::clone(&app), stop.clone()));

    let front = Front::new(Arc::clone(&app), routes(app, &health));
    let server = tokio::spawn(http::serve(
        listener,
        front,
        http::only_counted,
        http::Limits::default(),
        stop.clone(),
    ));
    stop.cancelled().await;
    health.drain();
    server.await??;
    kept.await?;
    Ok(())
}

/// Keeps the service's health true: Postgres answers, and the projector has made the schema.
async fn watch(
    app: Arc<App>,
    health: Health,
    (postgres, nats): (Dependency, Dependency),
    stop: CancellationToken,
) {
    let mut warmed = false;
    loop {
        let started = Instant::now();
        match timeout(LOOK * 2, schema_is_there(&app.pool)).await {
            Ok(Ok((true, version))) => {
                let latency = started.elapsed();
                postgres.is_of_version(&version);
                // Read once and remembered; without it Redis is not used.
                if let Ok(instance) = app.cursors.instance(&app.pool).await {
                    app.cache.belongs_to(instance);
                }
                if !warmed {
                    postgres.down("warming up");
                    warm(&app).await;
                    warmed = true;
                }
                postgres.up(Some(latency), "answers");
            }
            Ok(Ok((false, _))) => postgres.down("waiting for the projector to make the schema"),
            Ok(Err(error)) => postgres.down(error.to_string()),
            Err(_) => postgres.down("no answer in time"),
        }
        match app.head.server() {
            Some(version) => {
                nats.is_of_version(&version);
                nats.up(None, "connected");
            }
            None => nats.down("not connected: timelines are 503"),
        }
        health.fact("cache", app.cache.publish());
        app.meanings.tidy();
        health.fact("reads", app.in_flight());
        // Until it is there, somebody waits for the service: look more often.
        let pause = if postgres.is_up() { LOOK } else { LOOK / 5 };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// And the server's version.
async fn schema_is_there(pool: &PgPool) -> Result<(bool, String), sqlx::Error> {
    sqlx::query_as(
        "select to_regclass('api_key') is not null and to_regclass('instance_secret') is not null,
             current_setting('server_version')",
    )
    .fetch_one(pool)
    .await
}
