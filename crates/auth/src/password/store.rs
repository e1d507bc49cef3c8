//! All SQL of `auth.passwords` but the read at sign-in, which is one with the account's (account/store.rs).

use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Gives an account another password, or its first one.
pub(crate) async fn replace_password(
    connection: &mut PgConnection,
    user: &UserId,
    hash: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.passwords (user_id, hash, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT passwords_pkey DO UPDATE SET hash = excluded.hash, updated_at = excluded.updated_at",
        user.as_str(),
        hash,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Leaves an account without a password.
pub(crate) async fn delete_password(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.passwords WHERE user_id = $1", user.as_str()).execute(connection).await?;
    Ok(())
}

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
