//! What sessions and spends take in the database.

use crate::error::BenchError;
use crate::postgres::Postgres;
use sqlx::PgConnection;
use std::time::Duration;

/// Statistics reach other connections this late.
pub(crate) const STATISTICS_LAG: Duration = Duration::from_secs(2);

/// Rows and bytes of one user in the tables of sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OfUser {
    pub(crate) rows: i64,
    pub(crate) bytes: i64,
}

pub(crate) async fn of_user(connection: &mut PgConnection, user: &str) -> Result<OfUser, BenchError> {
    let (rows, bytes) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM (
             SELECT pg_column_size(row.*) AS bytes FROM auth.sessions AS row WHERE user_id = $1
             UNION ALL SELECT pg_column_size(row.*) FROM auth.refresh_chains AS row WHERE user_id = $1
             UNION ALL SELECT pg_column_size(row.*) FROM auth.security_events AS row WHERE user_id = $1
         ) AS of_user",
    )
    .bind(user)
    .fetch_one(connection)
    .await?;
    Ok(OfUser { rows, bytes })
}

/// A table with its indexes.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) rows: i64,
    pub(crate) heap_bytes: i64,
    pub(crate) index_bytes: i64,
    pub(crate) inserts: i64,
    pub(crate) dead_rows: i64,
    pub(crate) updates: i64,
    /// Updates that touched no index (heap-only tuples).
    pub(crate) hot_updates: i64,
}

/// The tables of sessions.
pub(crate) const OF_SESSIONS: &str = "^auth\\.(sessions|refresh_chains|security_events)$";
/// All tables of the ledger.
pub(crate) const OF_CREDITS: &str = "^credits\\.";

/// The tables whose names match, as they are now.
pub(crate) async fn tables(postgres: &Postgres, names: &str) -> Result<Vec<Table>, BenchError> {
    tokio::time::sleep(STATISTICS_LAG).await;
    let tables = sqlx::query_as(
        "SELECT relname::text AS name, n_live_tup AS rows, pg_table_size(relid) AS heap_bytes,
                pg_indexes_size(relid) AS index_bytes, n_tup_ins AS inserts, n_dead_tup AS dead_rows, n_tup_upd AS updates, n_tup_hot_upd AS hot_updates
         FROM pg_stat_user_tables
         WHERE schemaname || '.' || relname ~ $1 ORDER BY relname",
    )
    .bind(names)
    .fetch_all(&mut postgres.owner().await?)
    .await?;
    Ok(tables)
}

pub(crate) async fn vacuum(postgres: &Postgres) -> Result<(), BenchError> {
    sqlx::raw_sql("VACUUM ANALYZE auth.sessions, auth.refresh_chains, auth.security_events")
        .execute(&mut postgres.owner().await?)
        .await?;
    Ok(())
}

/// How many bytes of log PostgreSQL has written so far.
pub(crate) async fn log_position(connection: &mut PgConnection) -> Result<i64, BenchError> {
    let position = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
    Ok(sqlx::query_scalar(position).fetch_one(connection).await?)
}
