//! All SQL of `credits.idempotency_keys`.

use super::{Answer, IdempotencyKey, Stored};
use http::StatusCode;
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// What is remembered under a user's key.
pub(crate) async fn find_answer(
    connection: &mut PgConnection,
    user: &UserId,
    key: &IdempotencyKey,
) -> Result<Option<Stored>, DbError> {
    let row = sqlx::query!(
        "SELECT request_digest, status, body FROM credits.idempotency_keys WHERE user_id = $1 AND key = $2",
        user.as_str(),
        key.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let unreadable = || DbError::from(sqlx::Error::Decode("a remembered answer is not readable".into()));
    let status = u16::try_from(row.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(unreadable)?;
    Ok(Some(Stored {
        digest: row.request_digest.try_into().map_err(|_| unreadable())?,
        answer: Answer { status, body: row.body, is_replay: false },
    }))
}

/// Remembers an answer, in the transaction of what it answers to.
pub(crate) async fn insert_answer(
    connection: &mut PgConnection,
    user: &UserId,
    key: &IdempotencyKey,
    stored: &Stored,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO credits.idempotency_keys (user_id, key, request_digest, status, body, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        user.as_str(),
        key.as_str(),
        stored.digest.as_slice(),
        i16::try_from(stored.answer.status.as_u16()).unwrap_or(i16::MAX),
        stored.answer.body,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
