//! All SQL of `auth.jwks`.

use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A key as stored: its private half sealed under a version of the root secret.
pub(super) struct StoredKey {
    pub(super) kid: String,
    pub(super) public_jwk: serde_json::Value,
    pub(super) private_key_sealed: Vec<u8>,
    pub(super) secret_version: String,
}

/// Lets nobody else add a key until the transaction ends.
pub(super) async fn lock_keys(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query("LOCK TABLE auth.jwks IN SHARE ROW EXCLUSIVE MODE").execute(connection).await?;
    Ok(())
}

/// The key that signs.
pub(super) async fn find_active_key(connection: &mut PgConnection) -> Result<Option<StoredKey>, DbError> {
    Ok(sqlx::query_as!(
        StoredKey,
        "SELECT kid, public_jwk, private_key_sealed, secret_version FROM auth.jwks
         WHERE retired_at IS NULL ORDER BY created_at DESC LIMIT 1",
    )
    .fetch_optional(connection)
    .await?)
}

/// Adds a key.
pub(super) async fn insert_key(
    connection: &mut PgConnection,
    key: &StoredKey,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.jwks (kid, algorithm, public_jwk, private_key_sealed, secret_version, created_at)
         VALUES ($1, 'RS256', $2, $3, $4, $5)",
        key.kid,
        key.public_jwk,
        key.private_key_sealed,
        key.secret_version,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
