//! All SQL of `auth.disown_tokens`.

use super::model::DisownTokenHash;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

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

/// What a token is good for.
#[derive(Debug)]
pub(super) struct Found {
    /// The session that it ends, live or not.
    pub(super) session: SessionId,
    pub(super) user: UserId,
    /// When it was mailed.
    pub(super) mailed_at: OffsetDateTime,
}

/// What a token is good for at `now`, without using it up.
pub(super) async fn find_token(
    connection: &mut PgConnection,
    hash: DisownTokenHash,
    now: OffsetDateTime,
) -> Result<Option<Found>, DbError> {
    let row = sqlx::query_as!(
        FoundRow,
        "SELECT session_id, user_id, created_at FROM auth.disown_tokens WHERE token_hash = $1 AND coalesce(void_from > $2, true)",
        hash.as_bytes(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(FoundRow::into_found))
}

/// Uses up a token, and says what it was good for at `now`. None if it was not, or somebody else was faster.
pub(super) async fn delete_token(
    connection: &mut PgConnection,
    hash: DisownTokenHash,
    now: OffsetDateTime,
) -> Result<Option<Found>, DbError> {
    let row = sqlx::query_as!(
        FoundRow,
        "DELETE FROM auth.disown_tokens WHERE token_hash = $1 AND coalesce(void_from > $2, true)
         RETURNING session_id, user_id, created_at",
        hash.as_bytes(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(FoundRow::into_found))
}

struct FoundRow {
    session_id: String,
    user_id: String,
    created_at: OffsetDateTime,
}

impl FoundRow {
    fn into_found(self) -> Option<Found> {
        let (session, user) = (self.session_id.try_into().ok()?, self.user_id.try_into().ok()?);
        Some(Found { session, user, mailed_at: self.created_at })
    }
}

/// Voids what was mailed of sessions besides, up to `until`.
pub(super) async fn delete_tokens_of_sessions(
    connection: &mut PgConnection,
    sessions: &[String],
    until: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "DELETE FROM auth.disown_tokens WHERE session_id = ANY($1) AND created_at <= $2",
        sessions,
        until
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Has the links that were mailed to a user end `after` their mail, but for those of one session.
pub(super) async fn update_void_from(
    connection: &mut PgConnection,
    user: &UserId,
    but_of: Option<&str>,
    after: Duration,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.disown_tokens SET void_from = created_at + make_interval(secs => $3)
         WHERE user_id = $1 AND session_id IS DISTINCT FROM $2 AND void_from IS NULL",
        user.as_str(),
        but_of,
        after.as_seconds_f64(),
    )
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
