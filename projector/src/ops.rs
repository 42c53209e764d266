//! What operators do: look, repair, explain, and let the projection stand still. Each command is a
//! function here that returns a report; the command line (`cli`) and `query-api` (`/ops`) show the same
//! reports. What changes something goes through [`audit::audited`].

pub mod audit;
pub mod checkpoint;
pub mod dead_letters;
pub mod explain;
pub mod fields;
pub mod pause;
pub mod repair;
pub mod status;
pub mod transfer;

use std::{cmp::Ordering, sync::Arc, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use async_nats::jetstream::{self, stream::Stream};
use leadpulse_service::config::Config;
use secrecy::ExposeSecret;
use sqlx::PgPool;

use crate::{
    mapping::Mapping,
    reader::{self, ReadError, Seen},
    store,
};

/// Postgres must answer an operator's first question within this time.
const ANSWER: Duration = Duration::from_secs(5);

/// What operators' commands work with.
#[derive(Clone)]
pub struct Tools {
    pub config: Arc<Config>,
    pub mapping: Arc<Mapping>,
    pub pool: PgPool,
    pub jetstream: jetstream::Context,
}

/// The command line is wrong, or an answer is missing that a script has to give: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Tools {
    /// Connects in the background: `status` has to work when a server is away.
    pub async fn connect(config: Arc<Config>) -> Result<Self> {
        let pool = store::pool(&config.postgres).context("the Postgres URL can't be used")?;
        let client = async_nats::ConnectOptions::new()
            .name("leadpulse operator")
            .retry_on_initial_connect()
            .connect(config.nats.url.expose_secret())
            .await
            .context("the NATS URL can't be used")?;
        Ok(Self::new(config, pool, jetstream::new(client)))
    }

    pub fn new(config: Arc<Config>, pool: PgPool, jetstream: jetstream::Context) -> Self {
        Self { mapping: Arc::new(Mapping::of(&config)), config, pool, jetstream }
    }

    /// The same with connections of their own, which long work keeps as long as it likes.
    pub fn apart(&self) -> Result<Self> {
        let pool = store::pool(&self.config.postgres).context("the Postgres URL can't be used")?;
        Ok(Self { pool, ..self.clone() })
    }

    /// Postgres answers, and its schema is the one of this binary. Operators' tools never migrate.
    pub async fn check_schema(&self) -> Result<()> {
        let age = tokio::time::timeout(ANSWER, store::schema_age(&self.pool))
            .await
            .context("Postgres does not answer; is DATABASE_URL right?")?
            .context("Postgres can't be asked; is DATABASE_URL right?")?;
        match age {
            Ordering::Less => {
                bail!("the schema is older than this binary: `projector migrate` first")
            }
            Ordering::Equal => Ok(()),
            Ordering::Greater => bail!("the schema is newer than this binary: take the newer one"),
        }
    }

    pub async fn stream(&self) -> Result<(Stream, Seen), ReadError> {
        let stream = reader::find(&self.jetstream).await?;
        let seen = reader::look(&stream).await?;
        Ok((stream, seen))
    }

    /// What is folded here must be what the tables were made with.
    pub async fn check_mapping(&self) -> Result<()> {
        let own = self.mapping.hash();
        let Some(tables) = store::known_mapping(&self.pool).await? else { return Ok(()) };
        ensure!(
            own == tables,
            "the read models were made with mapping {tables}, this configuration has {own}: rows of both \
             must not stand side by side; `projector rebuild plan` tells what differs"
        );
        Ok(())
    }
}
