//! The record of everything that changed something.

use anyhow::Result;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

/// What somebody is about to do.
#[derive(Debug, Clone)]
pub struct Act {
    pub who: String,
    /// The org whose key it is, for what comes through the API.
    pub org_id: Option<String>,
    pub command: &'static str,
    pub arguments: Value,
    pub reason: Option<String>,
}

/// Does it between two writes of its audit row: one before, so that also what is killed has left one.
pub async fn audited<T: Serialize>(
    pool: &PgPool,
    act: &Act,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let id = begin(pool, act).await?;
    let outcome = work.await;
    end(pool, id, &outcome).await?;
    outcome
}

/// Writes that it begins; the id of the row.
pub async fn begin(pool: &PgPool, act: &Act) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "insert into operator_audit (org_id, who, command, arguments, reason)
         values ($1, $2, $3, $4, $5) returning id",
    )
    .bind(&act.org_id)
    .bind(&act.who)
    .bind(act.command)
    .bind(&act.arguments)
    .bind(&act.reason)
    .fetch_one(pool)
    .await
}

/// Writes what came of it.
pub async fn end<T: Serialize>(pool: &PgPool, id: i64, outcome: &Result<T>) -> Result<()> {
    let result = match outcome {
        Ok(report) => serde_json::to_value(report)?,
        Err(error) => Value::String(format!("{error:#}")),
    };
    sqlx::query(
        "update operator_audit set ended_at = now(), succeeded = $2, result = $3 where id = $1",
    )
    .bind(id)
    .bind(outcome.is_ok())
    .bind(result)
    .execute(pool)
    .await?;
    Ok(())
}

/// One row of the record.
#[derive(Debug, Clone, Serialize, sqlx::FromRow)]
pub struct Entry {
    pub id: i64,
    pub who: String,
    pub command: String,
    pub arguments: Value,
    pub reason: Option<String>,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub succeeded: Option<bool>,
    pub result: Option<Value>,
}

/// The entry of this id.
pub async fn entry(pool: &PgPool, id: i64) -> Result<Option<Entry>, sqlx::Error> {
    sqlx::query_as(
        "select id, who, command, arguments, reason, started_at, ended_at, succeeded, result
         from operator_audit where id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await
}

/// The newest entries: all, or those that came through the API with keys of one org.
pub async fn entries(
    pool: &PgPool,
    org_id: Option<&str>,
    limit: i64,
) -> Result<Vec<Entry>, sqlx::Error> {
    sqlx::query_as(
        "select id, who, command, arguments, reason, started_at, ended_at, succeeded, result
         from operator_audit where $1::text is null or org_id = $1 order by id desc limit $2",
    )
    .bind(org_id)
    .bind(limit)
    .fetch_all(pool)
    .await
}
