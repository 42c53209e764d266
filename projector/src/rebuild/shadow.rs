//! The tables that a rebuild makes: like the live ones, with the same names, in a schema of their own.
//! A pool whose search path begins with that schema runs the projection's own SQL on them.

use sqlx::{AssertSqlSafe, Executor, PgConnection, PgPool};

use crate::{
    reader::Seen,
    store::{AGENTS, PROJECTION, SKIPPED, signed},
};

/// Where the new tables are made.
pub(super) const SHADOW: &str = "leadpulse_shadow";
/// Where the old ones are kept after a swap.
pub(super) const ARCHIVE: &str = "leadpulse_archive";
/// Where the old ones go during a swap, until the archive's place is free.
pub(super) const OUTGOING: &str = "leadpulse_outgoing";

/// What takes the place of the live tables, in the order in which everybody locks them.
pub(super) const SWAPPED: [&str; 3] = ["lead_fact", "agent_metrics", "monday_user"];
/// Those of them that are so small that they have their indexes from the beginning.
const SMALL: &[&str] = &["agent_metrics", "monday_user"];
/// What a projection needs beside them, and what is remembered of it in the archive.
const BESIDE: [&str; 3] = ["checkpoint", "agent_dirty", "dead_letter"];

pub(super) async fn exists(pool: &PgPool, schema: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("select exists (select from pg_namespace where nspname = $1)")
        .bind(schema)
        .fetch_one(pool)
        .await
}

pub(super) async fn drop(pool: &PgPool, schema: &str) -> Result<(), sqlx::Error> {
    pool.execute(AssertSqlSafe(format!("drop schema if exists {schema} cascade"))).await?;
    Ok(())
}

/// Makes the schema and its empty tables, LeadFact without indexes. What an earlier rebuild left is dropped.
pub(super) async fn create(
    connection: &mut PgConnection,
    seen: &Seen,
    target: i64,
) -> Result<(), sqlx::Error> {
    connection.execute(AssertSqlSafe(beside(SHADOW))).await?;
    for table in SWAPPED {
        let options: Option<Vec<String>> = sqlx::query_scalar(
            "select reloptions from pg_class where oid = ('public.' || $1)::regclass",
        )
        .bind(table)
        .fetch_one(&mut *connection)
        .await?;
        // Autovacuum would hold a lock that the swap needs; it comes back with the swap.
        let mut settings = options.unwrap_or_default();
        settings.push("autovacuum_enabled = false".to_owned());
        let create = format!(
            "create table {SHADOW}.{table} (like public.{table} including all excluding indexes)
                 with ({})",
            settings.join(", ")
        );
        connection.execute(AssertSqlSafe(create)).await?;
    }
    for statement in grants(connection).await? {
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    for statement in missing_indexes(connection, SMALL).await? {
        connection.execute(AssertSqlSafe(statement)).await?;
    }
    sqlx::query(AssertSqlSafe(format!(
        "insert into {SHADOW}.checkpoint (projection, lane, stream, stream_created_at, seq, fence)
         values ($1, 0, $3, $4, $5, 0), ($2, 0, $3, $4, 0, 0)"
    )))
    .bind(PROJECTION)
    .bind(AGENTS)
    .bind(&seen.identity.name)
    .bind(seen.identity.created_at)
    .bind(target)
    .execute(&mut *connection)
    .await?;
    remember_letters(connection).await
}

/// What the new tables are made without stands among their own dead letters: what was skipped, so that a
/// skip of later can be told from it. Beside it, what waits as letters of an earlier stream.
async fn remember_letters(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let query = format!(
        "insert into {SHADOW}.dead_letter select * from public.dead_letter
         where projection = $1 and (starts_with(resolution, $2) or (resolved_at is null and stream_created_at <> (
             select min(stream_created_at) from {SHADOW}.checkpoint where projection = $1)))"
    );
    sqlx::query(AssertSqlSafe(query)).bind(PROJECTION).bind(SKIPPED).execute(connection).await?;
    Ok(())
}

/// Lets the tables in a schema leave out what operators have skipped since of the events that these tables
/// do not have yet.
pub(super) async fn leave_out(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<(), sqlx::Error> {
    let query = format!(
        "insert into {schema}.dead_letter select * from public.dead_letter
         where projection = $1 and starts_with(resolution, $2) and exists (
             select from {schema}.checkpoint reached where reached.projection = $1
             having min(reached.stream_created_at) = dead_letter.stream_created_at
                and max(reached.seq) < dead_letter.seq)
         on conflict do nothing"
    );
    sqlx::query(AssertSqlSafe(query)).bind(PROJECTION).bind(SKIPPED).execute(connection).await?;
    Ok(())
}

/// Skipped letters whose events the tables in a schema have, or may have, at this sequence.
pub(super) async fn skipped_since(
    connection: &mut PgConnection,
    schema: &str,
    at: u64,
) -> Result<i64, sqlx::Error> {
    let query = format!(
        "select count(*) from public.dead_letter skipped, (
             select min(stream_created_at) as created_at from {schema}.checkpoint where projection = $1) as stream
         where projection = $1 and starts_with(resolution, $2)
           and not (stream_created_at = stream.created_at and seq > $3) and not exists (
             select from {schema}.dead_letter known
             where known.projection = skipped.projection and known.seq = skipped.seq
               and known.stream_created_at = skipped.stream_created_at
               and (starts_with(known.resolution, $2)
                    or (known.resolved_at is null and known.stream_created_at = stream.created_at)))"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(query)).bind(PROJECTION).bind(SKIPPED);
    query.bind(signed(at)).fetch_one(connection).await
}

/// Who may do what with the live tables may do it with the new ones.
async fn grants(connection: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select format('grant %s on %I.%I to %s%s', acl.privilege_type, $2, relname,
             case grantee when 0 then 'public' else quote_ident(pg_get_userbyid(grantee)) end,
             case when is_grantable then ' with grant option' else '' end)
         from pg_class, aclexplode(relacl) as acl
         where relnamespace = 'public'::regnamespace and relname = any ($1)",
    )
    .bind(SWAPPED.map(str::to_owned).to_vec())
    .bind(SHADOW)
    .fetch_all(connection)
    .await
}

/// Views read a table by its identity and not by its name: they would go on reading the old one.
pub(super) async fn views(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "select distinct ev_class::regclass::text from pg_depend
         join pg_rewrite on pg_rewrite.oid = objid
         where classid = 'pg_rewrite'::regclass and refclassid = 'pg_class'::regclass
           and refobjid in (select oid from pg_class
                            where relnamespace = 'public'::regnamespace and relname = any ($1))
         order by 1",
    )
    .bind(SWAPPED.map(str::to_owned).to_vec())
    .fetch_all(pool)
    .await
}

/// Statements that make a schema anew with the tables that stand beside the swapped ones.
pub(super) fn beside(schema: &str) -> String {
    let mut sql = format!("drop schema if exists {schema} cascade; create schema {schema};");
    for table in BESIDE {
        sql.push_str(&format!(
            "create table {schema}.{table} (like public.{table} including all);"
        ));
    }
    sql
}

/// What is missing on the new tables of what the live ones have: keys and indexes, each under its
/// own name, as statements.
pub(super) async fn missing_indexes(
    connection: &mut PgConnection,
    tables: &[&str],
) -> Result<Vec<String>, sqlx::Error> {
    let definitions: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "select c.relname::text, pg_get_indexdef(i.indexrelid), pg_get_constraintdef(k.oid)
         from pg_index i
         join pg_class c on c.oid = i.indexrelid
         join pg_class t on t.oid = i.indrelid
         join pg_namespace n on n.oid = t.relnamespace
         left join pg_constraint k on k.conindid = i.indexrelid and k.contype in ('p', 'u')
         where n.nspname = 'public' and t.relname = any ($1)
           and not exists (select from pg_class made join pg_namespace on pg_namespace.oid = made.relnamespace
                           where nspname = $2 and made.relname = c.relname)
         order by t.relname, k.oid nulls last, c.relname",
    )
    .bind(tables.iter().map(|table| (*table).to_owned()).collect::<Vec<_>>())
    .bind(SHADOW)
    .fetch_all(connection)
    .await?;
    let statements = definitions.into_iter().map(|(name, index, constraint)| {
        let table = table_of(&index);
        match constraint {
            Some(key) => format!("alter table {SHADOW}.{table} add constraint {name} {key}"),
            None => index.replacen(" ON public.", &format!(" ON {SHADOW}."), 1),
        }
    });
    Ok(statements.collect())
}

/// `create index … on public.TABLE using …`
fn table_of(definition: &str) -> &str {
    let rest = definition.split_once(" ON public.").map_or("", |(_, rest)| rest);
    rest.split(' ').next().unwrap_or("")
}

/// Statistics for the planner, and a visibility map for index-only scans.
pub(super) async fn analyse(pool: &PgPool, tables: &[&str]) -> Result<(), sqlx::Error> {
    for table in tables {
        pool.execute(AssertSqlSafe(format!("vacuum (analyze) {SHADOW}.{table}"))).await?;
    }
    Ok(())
}

/// Are the columns of the incoming tables those of the live ones?
pub(super) async fn fits(pool: &PgPool, schema: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "with told as (
             select n.nspname, t.relname, a.attnum, a.attname, a.atttypid, a.attnotnull
             from pg_attribute a join pg_class t on t.oid = a.attrelid
             join pg_namespace n on n.oid = t.relnamespace
             where a.attnum > 0 and not a.attisdropped and n.nspname in ('public', $1)
               and t.relname = any ($2)),
         columns as (select *, row_number() over (partition by nspname, relname order by attnum) as place
             from told)
         select not exists (
             (select relname, place, attname, atttypid, attnotnull from columns where nspname = 'public'
              except select relname, place, attname, atttypid, attnotnull from columns where nspname = $1)
             union all
             (select relname, place, attname, atttypid, attnotnull from columns where nspname = $1
              except select relname, place, attname, atttypid, attnotnull from columns where nspname = 'public'))",
    )
    .bind(schema)
    .bind(SWAPPED.map(str::to_owned).to_vec())
    .fetch_one(pool)
    .await
}

/// The position that the tables in a schema have reached.
pub(super) async fn position(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<u64, sqlx::Error> {
    let query =
        format!("select coalesce(min(seq), 0) from {schema}.checkpoint where projection = $1");
    let seq: i64 =
        sqlx::query_scalar(AssertSqlSafe(query)).bind(PROJECTION).fetch_one(connection).await?;
    Ok(u64::try_from(seq).unwrap_or(0))
}
