//! All SQL of `auth.refresh_chains`.

use super::model::{CHAINS_PER_APP, CHAINS_PER_SESSION, ChainState, SecretVersions};
use crate::account::model::User;
use crate::account::store::UserRow;
use crate::session::model::{ACTIVITY_STEP, Minted};
use crate::session::store::Window;
use crate::token::AppId;
use mana_kernel::{RefreshChainId, SessionId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A chain as stored, with what its session and its user say of it.
pub(crate) struct Chain {
    pub(crate) id: RefreshChainId,
    pub(crate) session_id: SessionId,
    pub(crate) user: User,
    pub(crate) secret: SecretVersions,
    pub(crate) seed: Vec<u8>,
    pub(crate) remember_me: bool,
    pub(crate) session_created_at: OffsetDateTime,
    /// What is special of its session, if an app's backend opened that.
    pub(crate) minted: Option<Minted>,
    pub(crate) is_user_disabled: bool,
    pub(crate) state: ChainState,
}

/// Adds a chain at generation 1 under a session, which lives on by it. False if the session has ended: then nothing is added.
///
/// Chains beyond the limits go first, those refreshed longest ago, and before the session is touched: refreshes lock in the
/// same order.
pub(crate) async fn insert_chain(
    connection: &mut PgConnection,
    chain: &Chain,
    app: &AppId,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    sqlx::query!(
        "DELETE FROM auth.refresh_chains WHERE id IN (
             SELECT id FROM auth.refresh_chains WHERE id IN (
                 (SELECT id FROM auth.refresh_chains WHERE session_id = $1 AND app_id = $2 ORDER BY rotated_at DESC, id DESC OFFSET $3)
                 UNION ALL
                 (SELECT id FROM auth.refresh_chains WHERE session_id = $1 ORDER BY rotated_at DESC, id DESC OFFSET $4))
             ORDER BY id FOR UPDATE SKIP LOCKED)",
        chain.session_id.as_str(),
        app.as_str(),
        CHAINS_PER_APP.saturating_sub(1),
        i64::from(CHAINS_PER_SESSION.saturating_sub(1)),
    )
    .execute(&mut *connection)
    .await?;
    let done = sqlx::query!(
        "WITH session AS (
             UPDATE auth.sessions SET last_active_at = greatest(last_active_at, $8), expires_at = greatest(expires_at, $9)
             WHERE id = $3 AND revoked_at IS NULL RETURNING id
         )
         INSERT INTO auth.refresh_chains
             (id, user_id, session_id, app_id, secret_version, seed, generation, rotated_at, expires_at)
         SELECT $1, $2, session.id, $4, $5, $6, $7, $8, $9 FROM session",
        chain.id.as_str(),
        chain.user.id.as_str(),
        chain.session_id.as_str(),
        app.as_str(),
        chain.secret.version,
        chain.seed,
        chain.state.generation,
        now,
        chain.state.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A chain as it stands.
pub(crate) async fn find_chain(
    connection: &mut PgConnection,
    id: &RefreshChainId,
) -> Result<Option<Chain>, DbError> {
    let row = sqlx::query!(
        r#"SELECT chain.id, chain.session_id, chain.secret_version, chain.secret_since, chain.older_secret_version, chain.seed,
                chain.generation, chain.confirmed_at, least(chain.expires_at, session.expires_at) AS "expires_at!", session.remember_me, session.revoked_at,
                session.minted_by, session.expires_at AS session_expires_at,
                session.created_at AS session_created_at, users.id AS user_id, users.email, users.name, users.role,
                users.email_verified, users.image, users.created_at AS user_created_at, users.ways_in_epoch, users.disabled_at
         FROM auth.refresh_chains chain
         JOIN auth.sessions session ON session.id = chain.session_id
         JOIN auth.users ON users.id = chain.user_id
         WHERE chain.id = $1"#,
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        let user = UserRow {
            id: row.user_id,
            email: row.email,
            name: row.name,
            role: row.role,
            email_verified: row.email_verified,
            image: row.image,
            created_at: row.user_created_at,
            ways_in_epoch: row.ways_in_epoch,
        };
        Some(Chain {
            id: row.id.try_into().ok()?,
            session_id: row.session_id.try_into().ok()?,
            user: user.into_user()?,
            secret: SecretVersions {
                version: row.secret_version,
                since: row.secret_since,
                older: row.older_secret_version,
            },
            seed: row.seed,
            remember_me: row.remember_me,
            session_created_at: row.session_created_at,
            minted: row.minted_by.map(|by| Minted { by, until: row.session_expires_at }),
            is_user_disabled: row.disabled_at.is_some(),
            state: ChainState {
                generation: row.generation,
                confirmed_at: row.confirmed_at,
                expires_at: row.expires_at,
                is_revoked: row.revoked_at.is_some(),
            },
        })
    })
    // A row that this version can't read is the service's trouble, not the client's.
    .map(|chain| chain.ok_or_else(|| DbError::unreadable("auth.refresh_chains")))
    .transpose()
}

/// Moves a chain from the state it was read in to the next, with its session's activity, in one statement that commits by
/// itself. False if the chain has moved meanwhile or its session has ended: then nothing is changed.
pub(crate) async fn update_rotated(
    connection: &mut PgConnection,
    chain: &Chain,
    next: &ChainState,
    secret: &SecretVersions,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let rotated = sqlx::query_scalar!(
        r#"WITH rotated AS (
               UPDATE auth.refresh_chains chain
               SET generation = $2, rotated_at = $3, confirmed_at = $4, expires_at = $5,
                   secret_version = $6, secret_since = $7, older_secret_version = $8
               FROM auth.sessions session
               WHERE chain.id = $1 AND chain.generation = $9 AND session.id = chain.session_id
                   AND session.revoked_at IS NULL AND session.expires_at > $3
               RETURNING session.id
           ), active AS (
               UPDATE auth.sessions session SET last_active_at = greatest(last_active_at, $3), expires_at = greatest(expires_at, $5)
               FROM rotated WHERE session.id = rotated.id AND (last_active_at <= $10 OR expires_at <= $11)
           )
           SELECT count(*) AS "count!" FROM rotated"#,
        chain.id.as_str(),
        next.generation,
        now,
        next.confirmed_at,
        next.expires_at,
        secret.version,
        secret.since,
        secret.older,
        chain.state.generation,
        now.saturating_sub(ACTIVITY_STEP),
        next.expires_at.saturating_sub(ACTIVITY_STEP),
    )
    .fetch_one(connection)
    .await?;
    Ok(rotated == 1)
}

/// Notes that answers were seen in use: each names a chain and the generation it came with. Rows that are being written
/// right now are left out: they are being rotated.
pub(crate) async fn update_confirmed(
    connection: &mut PgConnection,
    chains: &[String],
    generations: &[i64],
    seen_at: &[OffsetDateTime],
) -> Result<(), DbError> {
    sqlx::query!(
        "WITH seen AS (
             SELECT chain.id, seen.at FROM auth.refresh_chains chain
             JOIN unnest($1::text[], $2::bigint[], $3::timestamptz[]) AS seen (id, generation, at)
               ON seen.id = chain.id AND seen.generation = chain.generation
             WHERE chain.confirmed_at IS NULL
             FOR NO KEY UPDATE OF chain SKIP LOCKED
         )
         UPDATE auth.refresh_chains chain SET confirmed_at = seen.at FROM seen WHERE chain.id = seen.id",
        chains,
        generations,
        seen_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes chains of a window's sessions that ended before `before`, and 30 days ago by the database's clock, at most `limit`, and says how many there were.
pub(crate) async fn delete_chains_ended_before(
    connection: &mut PgConnection,
    window: &Window,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.refresh_chains WHERE id IN (
             SELECT chain.id FROM auth.refresh_chains chain JOIN auth.sessions session ON session.id = chain.session_id
             WHERE session.id > $1 AND session.id <= $2
                 AND least(session.revoked_at, session.expires_at) < least($3, now() - interval '30 days')
             LIMIT $4 FOR UPDATE OF chain SKIP LOCKED)",
        window.after,
        window.last,
        before,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
