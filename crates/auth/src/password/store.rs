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
