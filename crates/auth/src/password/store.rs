//! All SQL of `auth.passwords` but the read at sign-in, which is one with the account's (account/store.rs).

use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Gives a new account its password.
pub(crate) async fn insert_password(
    connection: &mut PgConnection,
    user: &UserId,
    hash: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.passwords (user_id, hash, updated_at) VALUES ($1, $2, $3)",
        user.as_str(),
        hash,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether the user has a password.
pub(crate) async fn exists_password(connection: &mut PgConnection, user: &UserId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.passwords WHERE user_id = $1) AS "exists!""#,
        user.as_str()
    )
    .fetch_one(connection)
    .await?)
}
