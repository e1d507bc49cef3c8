//! All SQL of `auth.disown_tokens`.

use super::model::DisownTokenHash;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Adds a token that ends a session.
pub(super) async fn insert_token(
    connection: &mut PgConnection,
    hash: DisownTokenHash,
    user: &UserId,
    session: &SessionId,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.disown_tokens (token_hash, user_id, session_id, created_at) VALUES ($1, $2, $3, $4)",
        hash.as_bytes(),
        user.as_str(),
        session.as_str(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The session that an unused token ends, live or not.
pub(super) async fn find_token(
    connection: &mut PgConnection,
    hash: DisownTokenHash,
) -> Result<Option<(SessionId, UserId)>, DbError> {
    let row = sqlx::query!(
        "SELECT session_id, user_id FROM auth.disown_tokens WHERE token_hash = $1",
        hash.as_bytes()
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|row| Some((row.session_id.try_into().ok()?, row.user_id.try_into().ok()?))))
}

/// Uses up a token, and says which session it ends. None if it was none, or somebody else was faster.
pub(super) async fn delete_token(
    connection: &mut PgConnection,
    hash: DisownTokenHash,
) -> Result<Option<(SessionId, UserId)>, DbError> {
    let row = sqlx::query!(
        "DELETE FROM auth.disown_tokens WHERE token_hash = $1 RETURNING session_id, user_id",
        hash.as_bytes()
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|row| Some((row.session_id.try_into().ok()?, row.user_id.try_into().ok()?))))
}

/// Voids what else was mailed of sessions.
pub(super) async fn delete_tokens_of_sessions(
    connection: &mut PgConnection,
    sessions: &[String],
) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.disown_tokens WHERE session_id = ANY($1)", sessions)
        .execute(connection)
        .await?;
    Ok(())
}

/// Voids all links that were mailed to a user.
pub(crate) async fn delete_tokens_of(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.disown_tokens WHERE user_id = $1", user.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
