//! `query-api keys …`: what an operator does with keys.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use leadpulse_service::config::Config;
use secrecy::ExposeSecret;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    key::{self, NewKey},
    scope::Scope,
};
use crate::{cli, db};

/// Does it, and says so on stderr; stdout has only data.
pub async fn manage(config: &Config, command: cli::Keys) -> Result<()> {
    let pool = db::pool(&config.postgres).context("the Postgres URL can't be used")?;
    match command {
        // Without an org it is of the whole instance: the command line takes one of the two.
        cli::Keys::Create { org, instance: _, name, scopes, expires_in_days } => {
            let known: Vec<&str> = config.orgs.iter().map(|org| org.id.as_str()).collect();
            if let Some(org) = org.as_deref().filter(|org| !known.contains(org)) {
                bail!("the org `{org}` is not in the configuration; it has: {}", known.join(", "));
            }
            let scopes = match (&org, scopes.is_empty()) {
                (None, _) => vec![Scope::Instance],
                (Some(_), true) => Scope::ALL.to_vec(),
                (Some(_), false) => scopes,
            };
            let scopes = scopes.into_iter().map(|scope| scope.as_str().to_owned()).collect();
            let expires_at =
                expires_in_days.map(|days| Utc::now() + TimeDelta::days(i64::from(days)));
            let new = New { org, name, scopes, expires_at };
            let key = create(&pool, &new).await?;
            show(&new, &key);
            Ok(())
        }
        cli::Keys::List { org } => list(&pool, org.as_deref()).await,
        cli::Keys::Rotate { prefix, grace_hours } => rotate(&pool, &prefix, grace_hours).await,
        cli::Keys::Revoke { prefix } => revoke(&pool, &prefix).await,
    }
}

struct New {
    /// None: the whole instance.
    org: Option<String>,
    name: String,
    scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
}

async fn create(executor: impl PgExecutor<'_>, new: &New) -> Result<NewKey> {
    let key = key::generate()?;
    sqlx::query(
        "insert into api_key (id, org_id, name, prefix, hash, scopes, expires_at) values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(Uuid::new_v4())
    .bind(&new.org)
    .bind(&new.name)
    .bind(&key.prefix)
    .bind(key.hash.as_slice())
    .bind(&new.scopes)
    .bind(new.expires_at)
    .execute(executor)
    .await
    .context("the key was not stored; has `projector migrate` been run?")?;
    Ok(key)
}

#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
fn show(new: &New, key: &NewKey) {
    let whose = new.org.as_ref().map_or("the instance".to_owned(), |org| format!("org {org}"));
    eprintln!("key {} for {whose} ({})", key.prefix, new.scopes.join(", "));
    println!("{}", key.text.expose_secret());
}

#[derive(sqlx::FromRow)]
struct Line {
    prefix: String,
    org_id: Option<String>,
    name: String,
    scopes: Vec<String>,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
}

#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
async fn list(pool: &PgPool, org: Option<&str>) -> Result<()> {
    let lines: Vec<Line> = sqlx::query_as(
        "select prefix, org_id, name, scopes, expires_at, revoked_at, last_used_at from api_key
         where $1::text is null or org_id = $1 order by org_id, created_at",
    )
    .bind(org)
    .fetch_all(pool)
    .await?;
    let instant = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    for line in lines {
        let state = match (line.revoked_at, line.expires_at) {
            (Some(at), _) => format!("revoked {}", instant(at)),
            (None, Some(at)) if at <= Utc::now() => format!("expired {}", instant(at)),
            (None, Some(at)) => format!("until {}", instant(at)),
            (None, None) => "good".to_owned(),
        };
        let used = line.last_used_at.map_or_else(|| "never used".to_owned(), instant);
        let scopes = line.scopes.join(",");
        let org = line.org_id.as_deref().unwrap_or("(instance)");
        println!("{}\t{org}\t{state}\t{}\t{scopes}\t{used}", line.prefix, line.name);
    }
    Ok(())
}

/// What is made a new one of: as it was before it got its end.
#[derive(sqlx::FromRow)]
struct Old {
    org_id: Option<String>,
    name: String,
    scopes: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    ends_at: DateTime<Utc>,
}

/// Both or none: an old key that ends without a new one would lock its user out. The new one has as long a life
/// as the old one was given.
async fn rotate(pool: &PgPool, prefix: &str, grace_hours: u16) -> Result<()> {
    let now = Utc::now();
    let mut tx = pool.begin().await?;
    let mut rows: Vec<Old> = sqlx::query_as(
        "with old as (
             select id, expires_at from api_key
             where prefix = $1 and revoked_at is null and (expires_at is null or expires_at > $2)
             for update)
         update api_key set expires_at = least(old.expires_at, $3) from old where api_key.id = old.id
         returning org_id, name, scopes, created_at, old.expires_at as expires_at, api_key.expires_at as ends_at",
    )
    .bind(prefix)
    .bind(now)
    .bind(now + TimeDelta::hours(i64::from(grace_hours)))
    .fetch_all(&mut *tx)
    .await?;
    let old = match (rows.pop(), rows.is_empty()) {
        (Some(old), true) => old,
        (Some(_), false) => bail!("several good keys have the prefix `{prefix}`: revoke them"),
        (None, _) => bail!("no key with the prefix `{prefix}` that is neither revoked nor expired"),
    };
    let expires_at = old.expires_at.map(|at| now + (at - old.created_at));
    let new = New { org: old.org_id, name: old.name, scopes: old.scopes, expires_at };
    let key = create(&mut *tx, &new).await?;
    tx.commit().await?;
    let until = old.ends_at.to_rfc3339_opts(SecondsFormat::Secs, true);
    eprintln!("key {prefix} is good until {until}");
    show(&new, &key);
    Ok(())
}

async fn revoke(pool: &PgPool, prefix: &str) -> Result<()> {
    let done = sqlx::query(
        "update api_key set revoked_at = now() where prefix = $1 and revoked_at is null",
    )
    .bind(prefix)
    .execute(pool)
    .await?;
    if done.rows_affected() == 0 {
        bail!("no key with the prefix `{prefix}` that is not revoked yet");
    }
    eprintln!("key {prefix} is revoked");
    Ok(())
}
