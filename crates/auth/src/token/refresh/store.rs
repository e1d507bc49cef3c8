//! All SQL of `auth.refresh_chains`.

use super::model::ChainState;
use crate::token::AppId;
use mana_kernel::{RefreshChainId, SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// A chain as stored, with what its session says of it.
pub(crate) struct Chain {
    pub(crate) id: RefreshChainId,
    pub(crate) user_id: UserId,
    pub(crate) session_id: SessionId,
    pub(crate) secret_version: String,
    pub(crate) seed: Vec<u8>,
    pub(crate) remember_me: bool,
    pub(crate) state: ChainState,
}

/// Adds a chain at generation 1.
pub(crate) async fn insert_chain(
    connection: &mut PgConnection,
    chain: &Chain,
    app: &AppId,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.refresh_chains
            (id, user_id, session_id, app_id, secret_version, seed, generation, rotated_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        chain.id.as_str(),
        chain.user_id.as_str(),
        chain.session_id.as_str(),
        app.as_str(),
        chain.secret_version,
        chain.seed,
        chain.state.generation,
        chain.state.rotated_at,
        chain.state.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A chain, locked until the transaction ends: racing refreshes take their turns.
///
/// The session is locked first, as everything that ends a session locks it, so that the two can't wait for each other.
pub(crate) async fn lock_chain(
    connection: &mut PgConnection,
    id: &RefreshChainId,
) -> Result<Option<Chain>, DbError> {
    let row = sqlx::query!(
        "WITH session AS MATERIALIZED (
             SELECT id, remember_me, revoked_at FROM auth.sessions
             WHERE id = (SELECT session_id FROM auth.refresh_chains WHERE id = $1) FOR UPDATE
         )
         SELECT chain.user_id, chain.session_id, chain.secret_version, chain.seed, chain.generation, chain.rotated_at,
                chain.confirmed_at, chain.expires_at, session.remember_me, session.revoked_at
         FROM session JOIN auth.refresh_chains chain ON chain.session_id = session.id
         WHERE chain.id = $1 FOR UPDATE OF chain",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|row| {
        Some(Chain {
            id: id.clone(),
            user_id: row.user_id.try_into().ok()?,
            session_id: row.session_id.try_into().ok()?,
            secret_version: row.secret_version,
            seed: row.seed,
            remember_me: row.remember_me,
            state: ChainState {
                generation: row.generation,
                rotated_at: row.rotated_at,
                confirmed_at: row.confirmed_at,
                expires_at: row.expires_at,
                is_revoked: row.revoked_at.is_some(),
            },
        })
    }))
}

/// Moves a chain to its next generation.
pub(crate) async fn update_rotated(
    connection: &mut PgConnection,
    id: &RefreshChainId,
    generation: i64,
    now: OffsetDateTime,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.refresh_chains SET generation = $2, rotated_at = $3, confirmed_at = NULL, expires_at = $4 WHERE id = $1",
        id.as_str(),
        generation,
        now,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}
