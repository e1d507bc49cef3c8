//! All SQL of `auth.sessions`.

use super::model::{RevokeReason, Session, SessionCookieHash};
use super::proof::Proof;
use crate::DataPage;
use crate::account::export::row;
use crate::account::model::User;
use crate::account::store::UserRow;
use crate::new_device::EarlierSignIn;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use std::collections::HashSet;
use time::OffsetDateTime;

/// Adds a session. Of one that an app's backend opens, it is written down that its owner has never proven anything.
pub(crate) async fn insert_session(
    connection: &mut PgConnection,
    session: &Session,
    cookie: SessionCookieHash,
    proof: &Proof,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.sessions
            (id, user_id, cookie_hash, device_id, device_name, user_agent, ip_address, remember_me, created_at, last_active_at,
             cookie_renewed_at, authenticated_at, expires_at, authenticated_by, minted_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::inet, $8, $9, $9, $9,
             CASE WHEN $12::text IS NULL THEN $9 ELSE timestamptz 'epoch' END, $10, $11, $12)",
        session.id.as_str(),
        session.user_id.as_str(),
        cookie.as_bytes(),
        session.device_id,
        session.device_name,
        session.user_agent,
        session.ip_address,
        session.remember_me,
        session.created_at,
        session.expires_at,
        &proof.names(),
        session.opened_by_app,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Those of the sessions that live at `now`, belong to the user that is named beside them and whose user may act. Neither
/// can be ended until the transaction ends.
///
/// The users' rows are locked first, as a sign-in locks them, so that the two can't wait for each other; in the order of what
/// was asked, which no index gives, so that PostgreSQL keeps no plan that walks all users.
///
/// # Errors
/// When the database fails; no session counts as living then.
pub async fn hold_live(
    connection: &mut PgConnection,
    sessions: &[String],
    users: &[String],
    now: OffsetDateTime,
) -> Result<HashSet<SessionId>, DbError> {
    let held = sqlx::query_scalar!(
        "SELECT sessions.id FROM (SELECT unnest($1::text[]) AS session_id, unnest($2::text[]) AS user_id) AS asked
             JOIN auth.users ON users.id = asked.user_id
             JOIN auth.sessions ON sessions.id = asked.session_id AND sessions.user_id = users.id
         WHERE users.id = ANY($2) AND sessions.id = ANY($1)
             AND revoked_at IS NULL AND expires_at > $3 AND disabled_at IS NULL
         ORDER BY asked.user_id, asked.session_id FOR SHARE OF users, sessions",
        sessions,
        users,
        now,
    )
    .fetch_all(connection)
    .await?;
    held.into_iter().map(|id| id.try_into().map_err(|_| DbError::unreadable("auth.sessions"))).collect()
}

/// The user of a session that lives at `now`, who may act. Until the transaction ends, nobody ends the session, and what changes the
/// account's protection, or signs in to it, waits.
///
/// The user's row is locked first, as by whoever ends sessions and by a sign-in, so that no two wait for each other.
pub(crate) async fn hold_session(
    connection: &mut PgConnection,
    session: &SessionId,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<Option<User>, DbError> {
    let row = sqlx::query_as!(
        UserRow,
        "SELECT users.id, email, name, role, email_verified, image, users.created_at, ways_in_epoch
         FROM auth.users JOIN auth.sessions ON sessions.user_id = users.id
         WHERE users.id = $1 AND sessions.id = $2 AND revoked_at IS NULL AND expires_at > $3 AND disabled_at IS NULL
         FOR NO KEY UPDATE OF users FOR SHARE OF sessions",
        user.as_str(),
        session.as_str(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(UserRow::into_user))
}

/// When the person behind a session that lives at `now` last proved who they are; never, if the second factor was left to trust in the browser,
/// or an app's backend opened the session.
pub(crate) async fn find_authenticated_at(
    connection: &mut PgConnection,
    id: &SessionId,
    now: OffsetDateTime,
) -> Result<Option<OffsetDateTime>, DbError> {
    let at = sqlx::query_scalar!(
        "SELECT coalesce(authenticated_at, created_at) FROM auth.sessions
         WHERE id = $1 AND revoked_at IS NULL AND expires_at > $2 AND minted_by IS NULL
             AND NOT 'trusted_device' = ANY(coalesce(authenticated_by, '{}'))",
        id.as_str(),
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(at.flatten())
}

/// Whether an app's backend opened a session.
pub(crate) async fn is_minted(connection: &mut PgConnection, id: &SessionId) -> Result<bool, DbError> {
    let is_minted = sqlx::query_scalar!(
        r#"SELECT minted_by IS NOT NULL AS "is_minted!" FROM auth.sessions WHERE id = $1"#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(is_minted.unwrap_or_default())
}

/// What was proven within a session; nothing, if there is none or it is from before that was noted.
pub(crate) async fn find_proof(connection: &mut PgConnection, id: &SessionId) -> Result<Proof, DbError> {
    let names = sqlx::query_scalar!("SELECT authenticated_by FROM auth.sessions WHERE id = $1", id.as_str())
        .fetch_optional(connection)
        .await?;
    Ok(Proof::from_names(&names.flatten().unwrap_or_default()))
}

/// Notes that the person behind a session has proved again who they are.
pub(crate) async fn update_authenticated(
    connection: &mut PgConnection,
    id: &SessionId,
    proof: &Proof,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.sessions SET authenticated_at = $2,
             authenticated_by = (SELECT array_agg(DISTINCT method) FROM unnest(authenticated_by || $3::text[]) AS method
                                 WHERE method <> 'trusted_device')
         WHERE id = $1",
        id.as_str(),
        now,
        &proof.names(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A session that was ended for want of a second factor.
#[derive(Debug)]
pub(crate) struct LackingSession {
    pub(crate) id: SessionId,
    pub(crate) user_id: UserId,
}

/// Ends sessions that live at `now` and were opened without a second factor, of administrators or of all, the first `limit` of those
/// whose ids come after `after`.
pub(crate) async fn update_revoked_lacking_factor(
    connection: &mut PgConnection,
    admins_only: bool,
    after: &str,
    reason: RevokeReason,
    now: OffsetDateTime,
    limit: i64,
) -> Result<Vec<LackingSession>, DbError> {
    let rows = sqlx::query!(
        "UPDATE auth.sessions SET revoked_at = $3, revoked_reason = $2 WHERE id IN (
             SELECT session.id FROM auth.sessions session JOIN auth.users ON users.id = session.user_id
             WHERE session.id > $5 AND revoked_at IS NULL AND expires_at > $3 AND (NOT $1 OR role = 'admin')
                 AND NOT coalesce(authenticated_by, '{}') && ARRAY['code', 'recovery_code', 'trusted_device', 'verified_passkey']
                 AND NOT ('passkey' = ANY(coalesce(authenticated_by, '{}')) AND cardinality(authenticated_by) > 1)
             ORDER BY session.id LIMIT $4 FOR UPDATE OF session SKIP LOCKED)
         RETURNING id, user_id",
        admins_only,
        reason.as_str(),
        now,
        limit,
        after,
    )
    .fetch_all(connection)
    .await?;
    let read = |row: (String, String)| {
        Some(LackingSession { id: row.0.try_into().ok()?, user_id: row.1.try_into().ok()? })
    };
    Ok(rows.into_iter().filter_map(|row| read((row.id, row.user_id))).collect())
}

/// A session, as its owner.
pub(crate) async fn find_session(
    connection: &mut PgConnection,
    id: &SessionId,
) -> Result<Option<Session>, DbError> {
    let row = sqlx::query_as!(
        SessionRow,
        "SELECT id, user_id, device_id, device_name, user_agent, host(ip_address) AS ip_address, remember_me, created_at, last_active_at, expires_at, minted_by
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
        "SELECT id, user_id, device_id, device_name, user_agent, host(ip_address) AS ip_address, remember_me, created_at, last_active_at, expires_at, minted_by
         FROM auth.sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 ORDER BY last_active_at DESC, id DESC LIMIT 500",
        user.as_str(),
        now,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(SessionRow::into_session).collect())
}

/// How many sessions of a user live at `now`.
pub(crate) async fn count_live(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM auth.sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2"#,
        user.as_str(),
        now,
    )
    .fetch_one(connection)
    .await?)
}

struct SessionRow {
    id: String,
    user_id: String,
    device_id: Option<String>,
    device_name: Option<String>,
    user_agent: Option<String>,
    ip_address: Option<String>,
    remember_me: bool,
    created_at: OffsetDateTime,
    last_active_at: OffsetDateTime,
    expires_at: OffsetDateTime,
    minted_by: Option<String>,
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
            remember_me: self.remember_me,
            created_at: self.created_at,
            last_activity_at: self.last_active_at,
            expires_at: self.expires_at,
            opened_by_app: self.minted_by,
        })
    }
}

/// Notes when sessions were active, unless another replica has within the minute. Rows that are being written right now are left out: they are being used or ended.
pub(crate) async fn update_active(
    connection: &mut PgConnection,
    sessions: &[String],
    at: &[OffsetDateTime],
) -> Result<(), DbError> {
    sqlx::query!(
        "WITH active AS (
             SELECT session.id, active.at FROM auth.sessions session
             JOIN unnest($1::text[], $2::timestamptz[]) AS active (id, at) ON active.id = session.id
             WHERE session.last_active_at <= active.at - interval '1 minute' FOR NO KEY UPDATE OF session SKIP LOCKED
         )
         UPDATE auth.sessions session SET last_active_at = active.at FROM active WHERE session.id = active.id",
        sessions,
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Keeps a session that its cookie has just used alive until `expires_at`.
pub(crate) async fn update_used_by_cookie(
    connection: &mut PgConnection,
    id: &SessionId,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.sessions SET last_active_at = greatest(last_active_at, $2), expires_at = greatest(expires_at, $3), cookie_renewed_at = $2
         WHERE id = $1 AND revoked_at IS NULL",
        id.as_str(),
        now,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives a session another cookie; the one before opens nothing from then on.
pub(crate) async fn update_cookie(
    connection: &mut PgConnection,
    id: &SessionId,
    cookie: SessionCookieHash,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE auth.sessions SET cookie_hash = $2, last_active_at = greatest(last_active_at, $3), cookie_renewed_at = $3,
             expires_at = greatest(expires_at, $4)
         WHERE id = $1 AND revoked_at IS NULL",
        id.as_str(),
        cookie.as_bytes(),
        now,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
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
    /// All.
    All,
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
        Choice::This(id) => (id.as_str(), true),
        Choice::AllBut(id) => (id.as_str(), false),
        // No session has this id.
        Choice::All => ("", false),
    };
    Ok(sqlx::query_scalar!(
        "WITH chosen AS MATERIALIZED (
             SELECT id FROM auth.sessions
             WHERE user_id = $1 AND (id = $2) = $3 AND revoked_at IS NULL AND expires_at > $4 ORDER BY id FOR UPDATE
         )
         UPDATE auth.sessions SET revoked_at = $4, revoked_reason = $5 FROM chosen WHERE sessions.id = chosen.id RETURNING sessions.id",
        user.as_str(),
        id,
        is_chosen,
        now,
        reason.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// The sessions and users that cookies name, live or not.
pub(crate) async fn list_by_cookies(
    connection: &mut PgConnection,
    cookies: &[SessionCookieHash],
) -> Result<Vec<(SessionId, UserId)>, DbError> {
    let hashes: Vec<_> = cookies.iter().map(|cookie| cookie.as_bytes().to_vec()).collect();
    let rows = sqlx::query!("SELECT id, user_id FROM auth.sessions WHERE cookie_hash = ANY($1)", &hashes)
        .fetch_all(connection)
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((row.id.try_into().ok()?, row.user_id.try_into().ok()?)))
        .collect())
}

/// A live session, its user, and its cookie, with when that was last sent.
#[derive(Debug)]
pub(crate) struct CookieSession {
    pub(crate) cookie_hash: Vec<u8>,
    pub(crate) session: Session,
    pub(crate) user: User,
    pub(crate) cookie_renewed_at: OffsetDateTime,
}

/// The sessions that cookies name and that live at `now`, their users able to act; the newest sign-in first.
pub(crate) async fn list_live_by_cookies(
    connection: &mut PgConnection,
    cookies: &[SessionCookieHash],
    now: OffsetDateTime,
) -> Result<Vec<CookieSession>, DbError> {
    let hashes: Vec<_> = cookies.iter().map(|cookie| cookie.as_bytes().to_vec()).collect();
    let rows = sqlx::query!(
        r#"SELECT cookie_hash, session.id, session.user_id, device_id, device_name, user_agent, host(ip_address) AS ip_address, remember_me,
                  session.created_at, last_active_at, expires_at, minted_by, coalesce(cookie_renewed_at, session.created_at) AS "cookie_renewed_at!",
                  email, name, role, email_verified, image, users.created_at AS user_created_at, ways_in_epoch
           FROM auth.sessions session JOIN auth.users ON users.id = session.user_id
           WHERE cookie_hash = ANY($1) AND revoked_at IS NULL AND expires_at > $2 AND disabled_at IS NULL
           ORDER BY session.created_at DESC, session.id DESC"#,
        &hashes,
        now,
    )
    .fetch_all(connection)
    .await?;
    let sessions = rows.into_iter().filter_map(|row| {
        let user = UserRow {
            id: row.user_id.clone(),
            email: row.email,
            name: row.name,
            role: row.role,
            email_verified: row.email_verified,
            image: row.image,
            created_at: row.user_created_at,
            ways_in_epoch: row.ways_in_epoch,
        };
        let session = SessionRow {
            id: row.id,
            user_id: row.user_id,
            device_id: row.device_id,
            device_name: row.device_name,
            user_agent: row.user_agent,
            ip_address: row.ip_address,
            remember_me: row.remember_me,
            created_at: row.created_at,
            last_active_at: row.last_active_at,
            expires_at: row.expires_at,
            minted_by: row.minted_by,
        };
        Some(CookieSession {
            cookie_hash: row.cookie_hash,
            session: session.into_session()?,
            user: user.into_user()?,
            cookie_renewed_at: row.cookie_renewed_at,
        })
    });
    Ok(sessions.collect())
}

/// Ends those of a user's sessions that are beyond `limit`, the longest inactive first and never `newest`, and names them. Counted are those
/// that the user signed in to, or those that the same app opened: no app ends others' sessions by opening its own.
///
/// Whoever calls has locked the user, so that two sign-ins at once don't both find room.
pub(crate) async fn update_revoked_beyond(
    connection: &mut PgConnection,
    user: &UserId,
    newest: &Session,
    limit: i64,
    now: OffsetDateTime,
) -> Result<Vec<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "WITH chosen AS MATERIALIZED (
             SELECT id FROM auth.sessions WHERE id IN (
                 SELECT id FROM auth.sessions WHERE user_id = $1 AND id <> $2 AND revoked_at IS NULL AND expires_at > $3
                     AND minted_by IS NOT DISTINCT FROM $6
                 ORDER BY last_active_at DESC, id DESC OFFSET $4)
             ORDER BY id FOR UPDATE
         )
         UPDATE auth.sessions SET revoked_at = $3, revoked_reason = $5 FROM chosen
         WHERE sessions.id = chosen.id AND revoked_at IS NULL RETURNING sessions.id",
        user.as_str(),
        newest.id.as_str(),
        now,
        limit.saturating_sub(1),
        RevokeReason::TooMany.as_str(),
        newest.opened_by_app,
    )
    .fetch_all(connection)
    .await?)
}

// What tells a new device from a known one.

/// What the user's last 500 sign-ins before `session` tell of their devices, each combination once; of one that an app opened, what others
/// tell that the same app opened.
pub(crate) async fn list_earlier(
    connection: &mut PgConnection,
    session: &Session,
) -> Result<Vec<EarlierSignIn>, DbError> {
    Ok(sqlx::query_as!(
        EarlierSignIn,
        "SELECT device_id, user_agent, min(created_at) FILTER (WHERE revoked_reason IS DISTINCT FROM $3) AS known_at,
                min(created_at) FILTER (WHERE revoked_reason = $3) AS disowned_at
         FROM (
             SELECT device_id, user_agent, revoked_reason, created_at FROM auth.sessions
             WHERE user_id = $1 AND id <> $2 AND minted_by IS NOT DISTINCT FROM $4 ORDER BY created_at DESC LIMIT 500
         ) AS earlier GROUP BY device_id, user_agent",
        session.user_id.as_str(),
        session.id.as_str(),
        RevokeReason::Disowned.as_str(),
        session.opened_by_app,
    )
    .fetch_all(connection)
    .await?)
}

/// A session of a user, as one that may be a stranger's.
#[derive(Debug)]
pub(crate) struct OtherSession {
    pub(crate) id: String,
    pub(crate) device_id: Option<String>,
    pub(crate) user_agent: Option<String>,
    /// The names of what was proven in it.
    pub(crate) authenticated_by: Vec<String>,
    pub(crate) created_at: OffsetDateTime,
    /// When the newest of what it added was, of what is there and opens the account or is to change its address.
    pub(crate) added_at: Option<OffsetDateTime>,
    /// A mail has told of it, by a link that was not used.
    pub(crate) has_link: bool,
    /// So has one since the newest was added.
    pub(crate) has_link_since: bool,
    /// It was from a new device, if it was opened with or after the one in question.
    pub(crate) is_announced: bool,
}

/// A session, and its user's others that live, or in which something was added that is there.
pub(crate) async fn list_others(
    connection: &mut PgConnection,
    session: &Session,
    now: OffsetDateTime,
) -> Result<Vec<OtherSession>, DbError> {
    Ok(sqlx::query_as!(
        OtherSession,
        r#"SELECT session.id, device_id, user_agent, coalesce(authenticated_by, '{}') AS "authenticated_by!", session.created_at,
                  added.at AS "added_at?",
                  EXISTS (SELECT FROM auth.disown_tokens WHERE session_id = session.id) AS "has_link!",
                  EXISTS (SELECT FROM auth.disown_tokens WHERE session_id = session.id AND created_at >= added.at) AS "has_link_since!",
                  session.id IN (SELECT session_id FROM auth.security_events
                                 WHERE user_id = $1 AND created_at >= $3 AND type = 'new_device' AND session_id IS NOT NULL) AS "is_announced!"
           FROM auth.sessions session LEFT JOIN (
               SELECT added_in, max(at) AS at FROM (
                   SELECT added_in, created_at AS at FROM auth.passkeys WHERE user_id = $1
                   UNION ALL SELECT linked_in, created_at FROM auth.accounts WHERE user_id = $1
                   UNION ALL SELECT confirmed_in, confirmed_at FROM auth.two_factor_auth WHERE user_id = $1
                   UNION ALL SELECT begun_in, NULL FROM auth.two_factor_auth WHERE user_id = $1
                   UNION ALL SELECT made_in, created_at FROM auth.recovery_codes WHERE user_id = $1
                   UNION ALL SELECT asked_in, created_at FROM auth.verification_tokens WHERE user_id = $1
               ) AS each GROUP BY added_in
           ) AS added ON added.added_in = session.id
           WHERE user_id = $1 AND (session.id = $2 OR (revoked_at IS NULL AND expires_at > $4) OR added.added_in IS NOT NULL)"#,
        session.user_id.as_str(),
        session.id.as_str(),
        session.created_at,
        now,
    )
    .fetch_all(connection)
    .await?)
}

/// Ends sessions as their owner's no more, those too that have ended otherwise: what they came from makes no device known. Names those that lived
/// at `now`.
pub(crate) async fn update_disowned(
    connection: &mut PgConnection,
    sessions: &[String],
    now: OffsetDateTime,
) -> Result<Vec<String>, DbError> {
    let rows = sqlx::query!(
        r#"WITH chosen AS MATERIALIZED (
               SELECT id, revoked_at IS NULL AND expires_at > $2 AS has_lived FROM auth.sessions WHERE id = ANY($1) ORDER BY id FOR UPDATE
           )
           UPDATE auth.sessions SET revoked_at = coalesce(revoked_at, $2), revoked_reason = $3 FROM chosen WHERE sessions.id = chosen.id
           RETURNING sessions.id, has_lived AS "has_lived!""#,
        sessions,
        now,
        RevokeReason::Disowned.as_str(),
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter(|row| row.has_lived).map(|row| row.id).collect())
}

/// Erases from a user's sessions what tells of the person: the account is gone.
pub(crate) async fn update_devices_erased(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.sessions SET device_id = NULL, device_name = NULL, user_agent = NULL, ip_address = NULL WHERE user_id = $1",
        user.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A page of a user's sessions, those that have ended too, in the order of their ids.
pub(crate) async fn list_all(
    connection: &mut PgConnection,
    user: &UserId,
    after: Option<&str>,
) -> Result<DataPage, DbError> {
    let rows = sqlx::query_as!(
        SessionRow,
        "SELECT id, user_id, device_id, device_name, user_agent, host(ip_address) AS ip_address, remember_me, created_at, last_active_at, expires_at, minted_by
         FROM auth.sessions WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        user.as_str(),
        after.unwrap_or_default(),
        DataPage::ROWS,
    )
    .fetch_all(connection)
    .await?;
    let last = rows.last().map(|row| row.id.clone());
    Ok(DataPage::of(rows.into_iter().filter_map(SessionRow::into_session).map(row).collect(), last))
}

/// Some sessions that follow each other in the order of their ids.
#[derive(Debug)]
pub(crate) struct Window {
    /// The first is the one after this.
    pub(crate) after: String,
    /// The last.
    pub(crate) last: String,
    /// Whether one of them ended long ago.
    pub(crate) has_ended: bool,
}

/// The `rows` sessions after `after`, and whether one of them ended before `before`, and 30 days ago by the database's clock; none if there are no more.
pub(crate) async fn find_window(
    connection: &mut PgConnection,
    after: String,
    before: OffsetDateTime,
    rows: i64,
) -> Result<Option<Window>, DbError> {
    let row = sqlx::query!(
        r#"SELECT max(id) AS last, coalesce(bool_or(least(revoked_at, expires_at) < least($2, now() - interval '30 days')), false) AS "has_ended!"
           FROM (SELECT id, revoked_at, expires_at FROM auth.sessions WHERE id > $1 ORDER BY id LIMIT $3) AS next"#,
        after,
        before,
        rows,
    )
    .fetch_one(connection)
    .await?;
    Ok(row.last.map(|last| Window { after, last, has_ended: row.has_ended }))
}

/// Deletes sessions of a window that ended before `before`, and by the database's clock at least 30 days ago (a server whose
/// clock is ahead deletes nothing that lives), and have no chains any more, at most `limit`; says how many there were.
pub(crate) async fn delete_ended_before(
    connection: &mut PgConnection,
    window: &Window,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.sessions WHERE id IN (
             SELECT id FROM auth.sessions session
             WHERE id > $1 AND id <= $2 AND least(revoked_at, expires_at) < least($3, now() - interval '30 days')
                 AND NOT EXISTS (SELECT FROM auth.refresh_chains chain WHERE chain.session_id = session.id)
             LIMIT $4 FOR UPDATE SKIP LOCKED)",
        window.after,
        window.last,
        before,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
