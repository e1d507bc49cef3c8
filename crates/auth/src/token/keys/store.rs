//! All SQL of `auth.jwks`.

use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A key as stored.
pub(super) struct StoredKey {
    pub(super) kid: String,
    pub(super) public_jwk: serde_json::Value,
    /// The private half, sealed under a version of the root secret; absent when the key is previous or the environment's.
    pub(super) private_key_sealed: Option<Vec<u8>>,
    pub(super) secret_version: Option<String>,
    pub(super) created_at: OffsetDateTime,
    pub(super) activated_at: Option<OffsetDateTime>,
    pub(super) retired_at: Option<OffsetDateTime>,
    pub(super) served_until: Option<OffsetDateTime>,
    pub(super) longest_token_seconds: i64,
}

/// A key to add.
pub(super) struct NewKey {
    pub(super) kid: String,
    pub(super) algorithm: &'static str,
    pub(super) public_jwk: serde_json::Value,
    pub(super) private_key_sealed: Option<Vec<u8>>,
    pub(super) secret_version: Option<String>,
}

/// Lets nobody else change the keys until the transaction ends; they may be read meanwhile.
pub(super) async fn lock_keys(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query("LOCK TABLE auth.jwks IN SHARE ROW EXCLUSIVE MODE").execute(connection).await?;
    Ok(())
}

/// All keys in the order in which they sign: previous ones, the current one, the next one.
pub(super) async fn list_keys(connection: &mut PgConnection) -> Result<Vec<StoredKey>, DbError> {
    Ok(sqlx::query_as!(
        StoredKey,
        "SELECT kid, public_jwk, private_key_sealed, secret_version, created_at, activated_at, retired_at,
                served_until, longest_token_seconds
         FROM auth.jwks ORDER BY activated_at NULLS LAST, kid",
    )
    .fetch_all(connection)
    .await?)
}

/// Adds a key: the next one, or the current one if it is activated.
pub(super) async fn insert_key(
    connection: &mut PgConnection,
    key: &NewKey,
    created_at: OffsetDateTime,
    activated_at: Option<OffsetDateTime>,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.jwks (kid, algorithm, public_jwk, private_key_sealed, secret_version, created_at, activated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        key.kid,
        key.algorithm,
        key.public_jwk,
        key.private_key_sealed,
        key.secret_version,
        created_at,
        activated_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes a key the current one, also one that has been it before.
pub(super) async fn update_activated(
    connection: &mut PgConnection,
    kid: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.jwks SET activated_at = $2, retired_at = NULL, served_until = NULL WHERE kid = $1",
        kid,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a key's time as the current one and erases its private half.
pub(super) async fn update_retired(
    connection: &mut PgConnection,
    kid: &str,
    now: OffsetDateTime,
    served_until: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.jwks SET retired_at = $2, served_until = $3, private_key_sealed = NULL, secret_version = NULL
         WHERE kid = $1",
        kid,
        now,
        served_until,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Serves the public half of a key that still signs somewhere, at least until then.
pub(super) async fn replace_served(
    connection: &mut PgConnection,
    key: &NewKey,
    now: OffsetDateTime,
    served_until: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.jwks AS stored (kid, algorithm, public_jwk, created_at, activated_at, retired_at, served_until)
         VALUES ($1, $2, $3, $4, $4, $4, $5)
         ON CONFLICT (kid) DO UPDATE SET served_until = greatest(stored.served_until, excluded.served_until)
         WHERE stored.retired_at IS NOT NULL",
        key.kid,
        key.algorithm,
        key.public_jwk,
        now,
        served_until,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes on the keys that sign, or will, how long their tokens may live.
pub(super) async fn update_longest_token(connection: &mut PgConnection, seconds: i64) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.jwks SET longest_token_seconds = $1 WHERE retired_at IS NULL AND longest_token_seconds < $1",
        seconds,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Seals a private half anew.
pub(super) async fn update_sealed(
    connection: &mut PgConnection,
    kid: &str,
    private_key_sealed: &[u8],
    secret_version: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.jwks SET private_key_sealed = $2, secret_version = $3 WHERE kid = $1",
        kid,
        private_key_sealed,
        secret_version,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes keys, but none that is still served by the database's clock: the one of a server that runs ahead must not take
/// from all others what still verifies.
pub(super) async fn delete_keys(connection: &mut PgConnection, kids: &[String]) -> Result<(), DbError> {
    sqlx::query!(
        "DELETE FROM auth.jwks WHERE kid = ANY($1) AND (served_until IS NULL OR served_until <= now())",
        kids
    )
    .execute(connection)
    .await?;
    Ok(())
}
