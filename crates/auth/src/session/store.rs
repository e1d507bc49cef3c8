//! All SQL of `auth.sessions`.

use super::model::{RevokeReason, Session, SessionCookieHash};
use crate::new_device::EarlierSignIn;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Adds a session.
pub(crate) async fn insert_session(
    connection: &mut PgConnection,
    session: &Session,
    cookie: SessionCookieHash,
    remember_me: bool,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.sessions
            (id, user_id, cookie_hash, device_id, device_name, user_agent, ip_address, remember_me, created_at, last_active_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::inet, $8, $9, $9, $10)",
        session.id.as_str(),
        session.user_id.as_str(),
        cookie.as_bytes(),
        session.device_id,
        session.device_name,
        session.user_agent,
        session.ip_address,
        remember_me,
        session.created_at,
        session.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether the session lives at `now` and its user may act.
pub(crate) async fn is_live(
    connection: &mut PgConnection,
    session: &SessionId,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM auth.sessions JOIN auth.users ON users.id = user_id
               WHERE sessions.id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $3 AND disabled_at IS NULL
           ) AS "live!""#,
        session.as_str(),
        user.as_str(),
        now,
    )
    .fetch_one(connection)
    .await?)
}

/// The same, and if it lives, neither can be ended until the transaction ends.
///
/// # Errors
/// When the database fails; the session counts as neither then.
pub async fn hold_live(
    connection: &mut PgConnection,
    session: &SessionId,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let held = sqlx::query!(
        "SELECT sessions.id FROM auth.sessions JOIN auth.users ON users.id = user_id
         WHERE sessions.id = $1 AND user_id = $2 AND revoked_at IS NULL AND expires_at > $3 AND disabled_at IS NULL
         FOR SHARE",
        session.as_str(),
        user.as_str(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(held.is_some())
}

/// A session, as its owner.
pub(crate) async fn find_session(
    connection: &mut PgConnection,
    id: &SessionId,
) -> Result<Option<Session>, DbError> {
    let row = sqlx::query_as!(
        SessionRow,
        "SELECT id, user_id, device_id, device_name, user_agent, host(ip_address) AS ip_address, created_at, last_active_at, expires_at
         FROM auth.sessions WHERE id = $1",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(SessionRow::into_session))
}

/// A user's sessions that live at `now`, the last active first; the first 500.
pub(crate) async fn list_live(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<Vec<Session>, DbError> {
    let rows = sqlx::query_as!(
        SessionRow,
        "SELECT id, user_id, device_id, device_name, user_agent, host(ip_address) AS ip_address, created_at, last_active_at, expires_at
         FROM auth.sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY last_active_at DESC, id DESC LIMIT 500",
        user.as_str(),
        now,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(SessionRow::into_session).collect())
}

struct SessionRow {
    id: String,
    user_id: String,
    device_id: Option<String>,
    device_name: Option<String>,
    user_agent: Option<String>,
    ip_address: Option<String>,
    created_at: OffsetDateTime,
    last_active_at: OffsetDateTime,
    expires_at: OffsetDateTime,
}

impl SessionRow {
    fn into_session(self) -> Option<Session> {
        Some(Session {
            id: self.id.try_into().ok()?,
            user_id: self.user_id.try_into().ok()?,
            device_id: self.device_id,
            device_name: self.device_name,
            user_agent: self.user_agent,
            ip_address: self.ip_address,
            created_at: self.created_at,
            last_activity_at: self.last_active_at,
            expires_at: self.expires_at,
        })
    }
}

/// Keeps a session alive until `expires_at`.
pub(crate) async fn update_activity(
    connection: &mut PgConnection,
    id: &SessionId,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.sessions SET last_active_at = $2, expires_at = $3 WHERE id = $1",
        id.as_str(),
        now,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends a session, with all its chains and its cookie. True if it was live until now.
pub(crate) async fn update_revoked(
    connection: &mut PgConnection,
    id: &SessionId,
    reason: RevokeReason,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE auth.sessions SET revoked_at = $2, revoked_reason = $3 WHERE id = $1 AND revoked_at IS NULL",
        id.as_str(),
        now,
        reason.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Which of a user's sessions.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice<'a> {
    /// One.
    This(&'a SessionId),
    /// The others.
    AllBut(&'a SessionId),
}

/// Ends the chosen of a user's sessions that live at `now`, in one statement whatever their number, and names them.
///
/// Locks them in the order of their ids, so that two devices that end each other don't wait for each other.
pub(crate) async fn update_revoked_of(
    connection: &mut PgConnection,
    user: &UserId,
    choice: Choice<'_>,
    reason: RevokeReason,
    now: OffsetDateTime,
) -> Result<Vec<String>, DbError> {
    let (id, is_chosen) = match choice {
        Choice::This(id) => (id, true),
        Choice::AllBut(id) => (id, false),
    };
    Ok(sqlx::query_scalar!(
        "WITH chosen AS MATERIALIZED (
             SELECT id FROM auth.sessions
             WHERE user_id = $1 AND (id = $2) = $3 AND revoked_at IS NULL AND expires_at > $4 ORDER BY id FOR UPDATE
         )
         UPDATE auth.sessions SET revoked_at = $4, revoked_reason = $5 FROM chosen WHERE sessions.id = chosen.id RETURNING sessions.id",
        user.as_str(),
        id.as_str(),
        is_chosen,
        now,
        reason.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// The session and user that a cookie names, live or not.
pub(crate) async fn find_by_cookie(
    connection: &mut PgConnection,
    cookie: SessionCookieHash,
) -> Result<Option<(SessionId, UserId)>, DbError> {
    let row = sqlx::query!("SELECT id, user_id FROM auth.sessions WHERE cookie_hash = $1", cookie.as_bytes())
        .fetch_optional(connection)
        .await?;
    Ok(row.and_then(|row| Some((row.id.try_into().ok()?, row.user_id.try_into().ok()?))))
}

// What tells a new device from a known one.

/// What the user's last 500 sign-ins before `session` tell of their devices, each combination once.
pub(crate) async fn list_earlier(
    connection: &mut PgConnection,
    session: &Session,
) -> Result<Vec<EarlierSignIn>, DbError> {
    Ok(sqlx::query_as!(
        EarlierSignIn,
        r#"SELECT DISTINCT device_id, user_agent, revoked_reason IS NOT DISTINCT FROM $3 AS "is_disowned!" FROM (
               SELECT device_id, user_agent, revoked_reason FROM auth.sessions
               WHERE user_id = $1 AND id <> $2 ORDER BY created_at DESC LIMIT 500
           ) AS earlier"#,
        session.user_id.as_str(),
        session.id.as_str(),
        RevokeReason::Disowned.as_str(),
    )
    .fetch_all(connection)
    .await?)
}
