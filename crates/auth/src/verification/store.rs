//! All SQL of `auth.verification_tokens` and `auth.mail_requests`.

use super::model::Purpose;
use crate::session::model::RevokeReason;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A token as it is stored.
pub(super) struct NewToken<'a> {
    pub(super) user: &'a UserId,
    pub(super) purpose: Purpose,
    pub(super) hash: [u8; 32],
    /// Where it is mailed to.
    pub(super) email: &'a str,
    /// Who asked for it, if it was somebody who is signed in.
    pub(super) asking: Option<Asking<'a>>,
    pub(super) now: OffsetDateTime,
}

/// Who asked, signed in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    /// Once it was ended, but by a sign-out, the token is void.
    pub(super) session: &'a SessionId,
    /// The address.
    pub(super) from: Option<&'a str>,
}

/// Gives a user a token in place of the one of the same purpose.
pub(super) async fn replace_token(
    connection: &mut PgConnection,
    token: &NewToken<'_>,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.verification_tokens (user_id, purpose, token_hash, email, attempts, created_at, expires_at, asked_in, asked_from)
         VALUES ($1, $2, $3, $4, 0, $5, $6, $7, $8::text::inet)
         ON CONFLICT ON CONSTRAINT verification_tokens_pkey DO UPDATE SET token_hash = excluded.token_hash, email = excluded.email,
             attempts = 0, created_at = excluded.created_at, expires_at = excluded.expires_at, asked_in = excluded.asked_in,
             asked_from = excluded.asked_from",
        token.user.as_str(),
        token.purpose.as_str(),
        token.hash.as_slice(),
        token.email,
        token.now,
        token.now.saturating_add(token.purpose.ttl()),
        token.asking.map(|asking| asking.session.as_str()),
        token.asking.and_then(|asking| asking.from),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whose a token is that is good at `now`, and where it was mailed to. It is not if the session that asked for it was ended otherwise than by
/// a sign-out or its time.
pub(super) async fn find_token(
    connection: &mut PgConnection,
    purpose: Purpose,
    hash: [u8; 32],
    now: OffsetDateTime,
) -> Result<Option<(UserId, String)>, DbError> {
    let row = sqlx::query!(
        "SELECT user_id, email FROM auth.verification_tokens WHERE token_hash = $1 AND purpose = $2 AND expires_at > $3
             AND (asked_in IS NULL OR EXISTS (SELECT FROM auth.sessions WHERE id = asked_in AND coalesce(revoked_reason, $4) = $4))",
        hash.as_slice(),
        purpose.as_str(),
        now,
        RevokeReason::SignedOut.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|row| Some((row.user_id.try_into().ok()?, row.email))))
}

/// The address from which a user's token was asked for, where that is known.
pub(super) async fn find_asked_from(
    connection: &mut PgConnection,
    user: &UserId,
    purpose: Purpose,
) -> Result<Option<String>, DbError> {
    let from = sqlx::query_scalar!(
        "SELECT host(asked_from) FROM auth.verification_tokens WHERE user_id = $1 AND purpose = $2",
        user.as_str(),
        purpose.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(from.flatten())
}

/// A token that was used up.
#[derive(Debug)]
pub(super) struct UsedUp {
    /// The session that asked for it.
    pub(super) asked_in: Option<String>,
}

/// Uses up a token. None if it was not good at `now`, or somebody else was faster.
pub(super) async fn delete_token(
    connection: &mut PgConnection,
    user: &UserId,
    purpose: Purpose,
    hash: &[u8],
    now: OffsetDateTime,
) -> Result<Option<UsedUp>, DbError> {
    Ok(sqlx::query_as!(
        UsedUp,
        "DELETE FROM auth.verification_tokens WHERE user_id = $1 AND purpose = $2 AND token_hash = $3 AND expires_at > $4
             AND (asked_in IS NULL OR EXISTS (SELECT FROM auth.sessions WHERE id = asked_in AND coalesce(revoked_reason, $5) = $5))
         RETURNING asked_in",
        user.as_str(),
        purpose.as_str(),
        hash,
        now,
        RevokeReason::SignedOut.as_str(),
    )
    .fetch_optional(connection)
    .await?)
}

/// The hash that a user's code must match; none if [`update_guessed`] would give none.
pub(super) async fn find_code_hash(
    connection: &mut PgConnection,
    user: &UserId,
    email: &str,
    limit: i32,
    now: OffsetDateTime,
) -> Result<Option<Vec<u8>>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT token_hash FROM auth.verification_tokens
         WHERE user_id = $1 AND purpose = $2 AND email = $3 AND attempts < $4 AND expires_at > $5",
        user.as_str(),
        Purpose::SignInCode.as_str(),
        email,
        limit,
        now,
    )
    .fetch_optional(connection)
    .await?)
}

/// Counts a guess at a user's code, and gives the hash that it must match; none if there is no code that was mailed to `email`
/// and is good at `now`, or there were `limit` guesses.
pub(super) async fn update_guessed(
    connection: &mut PgConnection,
    user: &UserId,
    email: &str,
    limit: i32,
    now: OffsetDateTime,
) -> Result<Option<Vec<u8>>, DbError> {
    Ok(sqlx::query_scalar!(
        "UPDATE auth.verification_tokens SET attempts = attempts + 1
         WHERE user_id = $1 AND purpose = $2 AND email = $3 AND attempts < $4 AND expires_at > $5 RETURNING token_hash",
        user.as_str(),
        Purpose::SignInCode.as_str(),
        email,
        limit,
        now,
    )
    .fetch_optional(connection)
    .await?)
}

/// Voids all that was mailed for a user: for when a password or the address changes, or the account ends.
pub(crate) async fn delete_tokens(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.verification_tokens WHERE user_id = $1", user.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Voids what was asked for within some sessions.
pub(crate) async fn delete_tokens_asked_in(
    connection: &mut PgConnection,
    user: &UserId,
    sessions: &[String],
) -> Result<(), DbError> {
    sqlx::query!(
        "DELETE FROM auth.verification_tokens WHERE user_id = $1 AND asked_in = ANY($2)",
        user.as_str(),
        sessions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes tokens that are no longer good at `now`, at most `limit`; says how many there were.
pub(crate) async fn delete_expired(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.verification_tokens WHERE (user_id, purpose) IN (
             SELECT user_id, purpose FROM auth.verification_tokens WHERE expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
        now,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Writes down what somebody asked for.
pub(super) async fn insert_request(
    connection: &mut PgConnection,
    id: Uuid,
    sealed: &[u8],
    secret_version: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.mail_requests (id, sealed, secret_version, created_at) VALUES ($1, $2, $3, $4)",
        id,
        sealed,
        secret_version,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What somebody asked for.
pub(super) struct RequestRow {
    pub(super) id: Uuid,
    pub(super) sealed: Vec<u8>,
    pub(super) secret_version: String,
    pub(super) created_at: OffsetDateTime,
}

/// Takes the oldest request that nobody is at off the list.
pub(super) async fn delete_oldest_request(
    connection: &mut PgConnection,
) -> Result<Option<RequestRow>, DbError> {
    Ok(sqlx::query_as!(
        RequestRow,
        "DELETE FROM auth.mail_requests WHERE id = (SELECT id FROM auth.mail_requests ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
         RETURNING id, sealed, secret_version, created_at",
    )
    .fetch_optional(connection)
    .await?)
}
