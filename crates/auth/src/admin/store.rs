//! All SQL of `auth.admin_claims`.

use super::ClaimTokenHash;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Lets nobody else make or use a claim, or act as an administrator, until the transaction ends.
pub(crate) async fn lock_claims(connection: &mut PgConnection) -> Result<(), DbError> {
    sqlx::query("LOCK TABLE auth.admin_claims IN SHARE ROW EXCLUSIVE MODE").execute(connection).await?;
    Ok(())
}

/// Voids all claims and adds a new one.
pub(super) async fn replace_claims(
    connection: &mut PgConnection,
    hash: ClaimTokenHash,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.admin_claims").execute(&mut *connection).await?;
    sqlx::query!(
        "INSERT INTO auth.admin_claims (token_hash, created_at, expires_at) VALUES ($1, $2, $3)",
        hash.as_bytes(),
        now,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a claim is good at `now`.
pub(super) async fn is_good(
    connection: &mut PgConnection,
    hash: ClaimTokenHash,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.admin_claims WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2) AS "good!""#,
        hash.as_bytes(),
        now,
    )
    .fetch_one(connection)
    .await?)
}

/// Uses up a claim. False if it was not good, or somebody else was faster.
pub(super) async fn update_used(
    connection: &mut PgConnection,
    hash: ClaimTokenHash,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE auth.admin_claims SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL AND expires_at > $2",
        hash.as_bytes(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes claims that are no longer good.
pub(crate) async fn delete_expired(
    connection: &mut PgConnection,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.admin_claims WHERE expires_at < $1", now).execute(connection).await?;
    Ok(())
}
