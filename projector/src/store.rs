//! The projector's SQL. Every statement works on a whole batch; none runs once per row.

mod fault;
mod leads;
mod parked;
mod position;
mod rows;
mod users;

use std::{cmp::Ordering, io, str::FromStr, time::Duration};

use leadpulse_service::config::Postgres;
use secrecy::ExposeSecret;
use sqlx::{
    PgPool, Postgres as Database, Transaction,
    migrate::MigrateError,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use fault::{Fault, clear_fault, find_fault, tell_fault};
pub(crate) use leads::signed;
pub use leads::{Known, Loaded, Mark, load_leads, mark_dirty, upsert_leads};
pub use parked::{
    LeftOut, Letter, Parked, RETURNED, SKIPPED, SetAside, Unread, letters_of, name_unread, park,
    recently_parked, retries_requested, settle_letters, settle_returned, settle_unread,
    unread_requested,
};
pub(crate) use parked::{short_id, this_stream};
pub use position::{
    OpenError, Position, StreamIdentity, advance, hold_lanes, known_mapping, mapping_of_tables,
    open_positions, positions,
};
pub(crate) use position::{previous_mapping, swap_mapping};
pub use rows::{LEAD_COLUMNS, StoredLead, copy_leads, load_rows, read_lead};
pub use users::{StoredUser, not_later, replace_users, upsert_users};

/// The name of the projection that keeps LeadFact, beside its lanes' positions.
pub const PROJECTION: &str = "main";
/// The name under which the AgentMetrics worker holds its fence.
pub const AGENTS: &str = "agents";

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Why the schema is not the one of this binary.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error(
        "the schema is newer than this binary, which does not know its migration {0}: take the newer one"
    )]
    Newer(i64),
    #[error("the schema can't be brought up to date")]
    Failed(#[source] MigrateError),
}

/// Brings the schema up to date. Safe beside other projectors: sqlx takes an advisory lock.
pub async fn migrate(pool: &PgPool) -> Result<(), SchemaError> {
    let migrating = async {
        let mut connection = pool.acquire().await?;
        // A run that fails does not give its lock back, and would keep out the binary that knows the schema.
        connection.close_on_drop();
        MIGRATIONS.run(&mut *connection).await
    };
    migrating.await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => SchemaError::Newer(version),
        error => SchemaError::Failed(error),
    })
}

/// How a database's schema stands to this binary's: before it, the same, or after it.
pub async fn schema_age(pool: &PgPool) -> Result<Ordering, sqlx::Error> {
    let migrated = "select to_regclass('_sqlx_migrations') is not null";
    let version: Option<i64> = if sqlx::query_scalar(migrated).fetch_one(pool).await? {
        let last = "select max(version) from _sqlx_migrations where success";
        sqlx::query_scalar(last).fetch_one(pool).await?
    } else {
        None
    };
    Ok(version.cmp(&MIGRATIONS.iter().map(|migration| migration.version).max()))
}

/// A pool that connects when it is first used. A connection of a frozen process gives up its locks:
/// the next owner must not wait for a sleeper.
pub fn pool(config: &Postgres) -> Result<PgPool, sqlx::Error> {
    connect(config, &[("statement_timeout", "60s")])
}

/// A pool that finds its tables in another schema first: what is written for the live tables builds
/// the shadow ones, too. Its statements may take their time, as the making of an index does, but take no
/// helpers: those would run on the cores on which Postgres answers dashboards.
pub fn pool_in(config: &Postgres, schema: &str) -> Result<PgPool, sqlx::Error> {
    let settings = [
        ("search_path", &*format!("{schema},public")),
        ("statement_timeout", "0"),
        ("max_parallel_workers_per_gather", "0"),
        ("max_parallel_maintenance_workers", "0"),
    ];
    connect(config, &settings)
}

fn connect(config: &Postgres, settings: &[(&str, &str)]) -> Result<PgPool, sqlx::Error> {
    let options = PgConnectOptions::from_str(config.url.expose_secret())?
        .application_name("projector")
        .options([
            ("idle_in_transaction_session_timeout", "3s"),
            ("lock_timeout", "10s"),
            // A plan that was kept while a table was empty reads all of it when it has grown, and a
            // large batch asks for another plan than a small one. Planning is cheap beside a batch.
            ("plan_cache_mode", "force_custom_plan"),
        ])
        .options(settings.iter().copied());
    Ok(PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(Duration::from_secs(5))
        .connect_lazy_with(options))
}

/// A transaction, begun to its end also where its caller is cut off: until the answer is there sqlx knows of
/// no transaction that it would have to end, and the pool's next user would find itself inside it.
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Database>, sqlx::Error> {
    begin_as(pool, "begin").await
}

/// The same with an isolation level.
pub async fn begin_as(
    pool: &PgPool,
    statement: &'static str,
) -> Result<Transaction<'static, Database>, sqlx::Error> {
    let pool = pool.clone();
    let begun = tokio::spawn(async move { pool.begin_with(statement).await });
    begun.await.unwrap_or_else(|ended| Err(io::Error::other(ended).into()))
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else owns the projection now: stop at once, everything was rolled back.
    #[error("another projector holds the fence")]
    FenceLost,
    /// This data can never be written: find it and park it.
    #[error("postgres refuses the data")]
    Permanent(#[source] sqlx::Error),
    /// So many leads are refused that the fault is none of the leads': nothing was written.
    #[error(
        "{refused} leads or unreadable messages were refused within ten minutes, the last of them: {cause}"
    )]
    Systemic {
        refused: i64,
        cause: String,
        /// The end of the batch.
        to: u64,
    },
    /// An operator changed rows or dead letters: what this process remembers of them is no longer true.
    #[error(
        "an operator repaired the read models, the projection begins again with what they are now"
    )]
    Repaired,
    /// Worth another try.
    #[error("postgres is not available")]
    Transient(#[source] sqlx::Error),
}

impl From<sqlx::Error> for WriteError {
    fn from(error: sqlx::Error) -> Self {
        // Class 22 is bad data, class 23 a broken constraint: the same rows fail in the same way again.
        let code = error.as_database_error().and_then(|error| error.code().map(|c| c.into_owned()));
        let permanent = code.is_some_and(|code| code.starts_with("22") || code.starts_with("23"));
        match error {
            sqlx::Error::Encode(_) => Self::Permanent(error),
            _ if permanent => Self::Permanent(error),
            _ => Self::Transient(error),
        }
    }
}
