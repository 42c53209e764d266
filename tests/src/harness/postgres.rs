//! A database for each test, on a Postgres that tests share where they can.

use std::{
    env,
    hash::{BuildHasher, Hasher, RandomState},
    path::Path,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use anyhow::{Context, Result};
use sqlx::{Connection, Executor, PgConnection, PgPool, postgres::PgPoolOptions};
use xtask::servers::{Binaries, Postgres, PostgresOptions, Scratch, Server};

/// One empty database, dropped with its handle's server or left to it.
pub struct Database {
    url: String,
    pub pool: PgPool,
    home: Home,
}

enum Home {
    /// The one of `cargo xtask test`, for all test processes.
    Everybodys,
    /// The one of this process; it ends with the last test that runs.
    Process { _server: Arc<SharedServer> },
    /// The test's own.
    Own(Box<Server>),
}

struct SharedServer {
    server: Server,
    _scratch: Scratch,
}

static OF_THIS_PROCESS: Mutex<Weak<SharedServer>> = Mutex::new(Weak::new());

impl Database {
    pub(super) async fn create(servers: &Binaries, folder: &Path, own: bool) -> Result<Self> {
        let (admin_url, home) = if own {
            let server =
                Postgres::start(servers, &folder.join("postgres"), &PostgresOptions::test())?;
            (server.url().to_owned(), Home::Own(Box::new(server)))
        } else if let Ok(url) = env::var("LEADPULSE_TEST_POSTGRES_URL") {
            (url, Home::Everybodys)
        } else {
            let shared = of_this_process(servers)?;
            (shared.server.url().to_owned(), Home::Process { _server: shared })
        };
        let name = format!("leadpulse_test_{:016x}", RandomState::new().build_hasher().finish());
        let mut admin =
            PgConnection::connect(&admin_url).await.context("can't reach the tests' Postgres")?;
        // The name is ours, of hexadecimal digits only.
        admin.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await?;
        admin.close().await?;
        let (server, _) = admin_url.rsplit_once('/').context("the URL names no database")?;
        let url = format!("{server}/{name}");
        let pool = PgPoolOptions::new().max_connections(3).connect_lazy(&url)?;
        Ok(Self { url, pool, home })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The server, of a test that asked for one of its own.
    pub fn server(&mut self) -> &mut Server {
        match &mut self.home {
            Home::Own(server) => server,
            _ => panic!("others use this Postgres too; ask for `own_postgres`"),
        }
    }
}

fn of_this_process(servers: &Binaries) -> Result<Arc<SharedServer>> {
    let mut known = OF_THIS_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(shared) = known.upgrade() {
        return Ok(shared);
    }
    let scratch = Scratch::new("tests-postgres")?;
    let server =
        Postgres::start(servers, &scratch.path().join("postgres"), &PostgresOptions::test())?;
    let shared = Arc::new(SharedServer { server, _scratch: scratch });
    *known = Arc::downgrade(&shared);
    Ok(shared)
}
