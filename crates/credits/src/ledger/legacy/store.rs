//! All SQL of `credits.imported_wallets`, and what else only this import asks.

use mana_platform::DbError;
use sqlx::PgConnection;
use std::collections::HashSet;
use time::{Date, OffsetDateTime};

/// Opens a wallet, as of the time at which its owner got one, if there is none.
pub(super) async fn open_wallet(
    connection: &mut PgConnection,
    user: &str,
    granted_on: Option<Date>,
    zone: &str,
    created_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.balances
            (user_id, sequence, free, paid, total_earned, total_spent, head, daily_granted_on, created_at, updated_at)
         VALUES ($1, 0, 0, 0, 0, 0, $2, coalesce($3, (now() AT TIME ZONE $4)::date), $5, $5)
         ON CONFLICT ON CONSTRAINT balances_user_id_key DO NOTHING",
        user,
        [0_u8; 32].as_slice(),
        granted_on,
        zone,
        created_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes what a wallet had when it was brought. When that was is for people who look: nothing reads it.
pub(super) async fn insert_imported(
    connection: &mut PgConnection,
    wallet: i64,
    sequence: i64,
    free: i64,
    paid: i64,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.imported_wallets (wallet_id, sequence, free, paid, imported_at) VALUES ($1, $2, $3, $4, $5)",
        wallet,
        sequence,
        free,
        paid,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What the wallets of these users had when they were brought, of those that were.
pub(super) async fn list_imported(
    connection: &mut PgConnection,
    users: &[String],
) -> Result<Vec<(String, i64, i64)>, DbError> {
    let rows = sqlx::query!(
        "SELECT user_id, imported.free, imported.paid FROM credits.imported_wallets imported JOIN credits.balances USING (wallet_id)
         WHERE user_id = ANY($1)",
        users,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.user_id, row.free, row.paid)).collect())
}

/// Of all wallets that were brought: how many they are, what they had by what was noted, and what they had by their lines. Of
/// those that have not moved since, also by their rows.
pub(super) struct SumsRow {
    pub(super) wallets: i64,
    pub(super) free: i64,
    pub(super) paid: i64,
    pub(super) by_lines: i64,
    pub(super) untrue: i64,
}

/// See [`SumsRow`].
pub(super) async fn sum_imported(connection: &mut PgConnection) -> Result<SumsRow, DbError> {
    Ok(sqlx::query_as!(
        SumsRow,
        r#"SELECT count(*) AS "wallets!", coalesce(sum(imported.free), 0)::bigint AS "free!",
               coalesce(sum(imported.paid), 0)::bigint AS "paid!", coalesce(sum(line.balance_after), 0)::bigint AS "by_lines!",
               count(*) FILTER (WHERE balances.wallet_id IS NULL OR coalesce(line.balance_after, 0) <> imported.free + imported.paid
                   OR (balances.sequence = imported.sequence AND balances.held = 0
                       AND (balances.free, balances.paid) <> (imported.free, imported.paid))) AS "untrue!"
           FROM credits.imported_wallets imported
               LEFT JOIN credits.balances USING (wallet_id)
               LEFT JOIN credits.transactions line ON line.wallet_id = imported.wallet_id AND line.sequence = imported.sequence"#,
    )
    .fetch_one(connection)
    .await?)
}

/// The version of a package that was sold as this, if there is one.
pub(super) async fn find_version(
    connection: &mut PgConnection,
    package: &str,
    credits: i64,
    price_euro_cents: i64,
) -> Result<Option<i32>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT version FROM credits.package_versions WHERE package_id = $1 AND credits = $2 AND price_euro_cents = $3
         ORDER BY version LIMIT 1",
        package,
        credits,
        price_euro_cents,
    )
    .fetch_optional(connection)
    .await?)
}

/// Those of the packages that are there.
pub(super) async fn list_packages(
    connection: &mut PgConnection,
    ids: &[String],
) -> Result<HashSet<String>, DbError> {
    let found = sqlx::query_scalar!("SELECT id FROM credits.packages WHERE id = ANY($1)", ids);
    Ok(found.fetch_all(connection).await?.into_iter().collect())
}
