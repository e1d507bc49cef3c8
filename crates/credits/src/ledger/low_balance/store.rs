//! All SQL of `credits.low_balance_notices`, and of the setting in `credits.balances`.

use crate::ledger::store::column;
use mana_kernel::{Mana, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Below what a user wants to be told, and whether by mail; none without a wallet.
pub(super) async fn find_setting(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Option<(Option<i64>, bool)>, DbError> {
    let row =
        sqlx::query!("SELECT low_below, low_mail FROM credits.balances WHERE user_id = $1", user.as_str())
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|row| (row.low_below, row.low_mail)))
}

/// Sets it.
pub(super) async fn update_setting(
    connection: &mut PgConnection,
    user: &UserId,
    below: Option<i64>,
    mail: bool,
    language: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE credits.balances SET low_below = $2, low_mail = $3, low_language = $4 WHERE user_id = $1",
        user.as_str(),
        below,
        mail,
        language,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that the owners of these wallets are to be mailed that little is left, if they want to be.
pub(crate) async fn insert_notices(
    connection: &mut PgConnection,
    low: &[(&str, Mana, Mana)],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.low_balance_notices (user_id, below, available, language, created_at)
         SELECT low.user_id, below, available, coalesce(low_language, 'en'), $4
         FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS low (user_id, available, below)
         JOIN credits.balances ON balances.user_id = low.user_id WHERE low_mail",
        &column(low, |(user, ..)| (*user).to_owned()),
        &column(low, |(_, available, _)| available.get()),
        &column(low, |(.., below)| below.get()),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// An owner who is to be mailed that little is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowBalanceNotice {
    /// Whom.
    pub user_id: String,
    /// Below which the owner wants to be told.
    pub below: i64,
    /// What could be spent.
    pub available: i64,
    /// In which language, as in `Accept-Language`.
    pub language: String,
}

/// Takes notices out, the oldest first, at most `limit`: if the transaction commits, they are gone. Leaves out what others are at.
///
/// # Errors
/// When the database fails.
pub async fn take_notices(
    connection: &mut PgConnection,
    limit: i64,
) -> Result<Vec<LowBalanceNotice>, DbError> {
    Ok(sqlx::query_as!(
        LowBalanceNotice,
        "WITH due AS MATERIALIZED (
             SELECT id FROM credits.low_balance_notices ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM credits.low_balance_notices notice USING due WHERE notice.id = due.id
         RETURNING user_id, below, available, language",
        limit,
    )
    .fetch_all(connection)
    .await?)
}
