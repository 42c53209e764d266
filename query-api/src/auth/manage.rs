//! `query-api keys …`: what an operator does with keys.

use anyhow::{Context, Result, bail};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use leadpulse_service::config::Config;
use secrecy::ExposeSecret;
use sqlx::PgPool;
use uuid::Uuid;

use super::{key, scope::Scope};
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
            create(&pool, &New { org, name, scopes, expires_at }).await
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

#[expect(clippy::print_stdout, reason = "the answer of a command-line tool")]
async fn create(pool: &PgPool, new: &New) -> Result<()> {
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
    .execute(pool)
    .await
    .context("the key was not stored; has `projector migrate` been run?")?;
    let whose = new.org.as_ref().map_or("the instance".to_owned(), |org| format!("org {org}"));
    eprintln!("key {} for {whose} ({})", key.prefix, new.scopes.join(", "));
    println!("{}", key.text.expose_secret());
    Ok(())
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

async fn rotate(pool: &PgPool, prefix: &str, grace_hours: u16) -> Result<()> {
    let until = Utc::now() + TimeDelta::hours(i64::from(grace_hours));
    let rows: Vec<(Option<String>, String, Vec<String>)> = sqlx::query_as(
        "update api_key set expires_at = least(expires_at, $2)
         where prefix = $1 and revoked_at is null returning org_id, name, scopes",
    )
    .bind(prefix)
    .bind(until)
    .fetch_all(pool)
    .await?;
    let Some((org, name, scopes)) = rows.into_iter().next() else {
        bail!("no key with the prefix `{prefix}` that is not revoked")
    };
    eprintln!("key {prefix} is good until {}", until.to_rfc3339_opts(SecondsFormat::Secs, true));
    create(pool, &New { org, name, scopes, expires_at: None }).await
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
