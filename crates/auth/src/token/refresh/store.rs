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
    pub(crate) session_created_at: OffsetDateTime,
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

/// A chain as it stands.
pub(crate) async fn find_chain(
    connection: &mut PgConnection,
    id: &RefreshChainId,
) -> Result<Option<Chain>, DbError> {
    let row = sqlx::query_as!(
        ChainRow,
        "SELECT chain.id, chain.user_id, chain.session_id, chain.secret_version, chain.seed, chain.generation,
                chain.rotated_at, chain.confirmed_at, chain.expires_at, session.remember_me, session.revoked_at,
                session.created_at AS session_created_at
         FROM auth.refresh_chains chain JOIN auth.sessions session ON session.id = chain.session_id
         WHERE chain.id = $1",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(ChainRow::into_chain))
}

/// A chain, locked until the transaction ends: racing refreshes take their turns.
///
/// The session is locked first, as everything that ends a session locks it, so that the two can't wait for each other.
pub(crate) async fn lock_chain(
    connection: &mut PgConnection,
    id: &RefreshChainId,
) -> Result<Option<Chain>, DbError> {
    let row = sqlx::query_as!(
        ChainRow,
        "WITH session AS MATERIALIZED (
             SELECT id, remember_me, revoked_at, created_at FROM auth.sessions
             WHERE id = (SELECT session_id FROM auth.refresh_chains WHERE id = $1) FOR UPDATE
         )
         SELECT chain.id, chain.user_id, chain.session_id, chain.secret_version, chain.seed, chain.generation,
                chain.rotated_at, chain.confirmed_at, chain.expires_at, session.remember_me, session.revoked_at,
                session.created_at AS session_created_at
         FROM session JOIN auth.refresh_chains chain ON chain.session_id = session.id
         WHERE chain.id = $1 FOR UPDATE OF chain",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(ChainRow::into_chain))
}

struct ChainRow {
    id: String,
    user_id: String,
    session_id: String,
    secret_version: String,
    seed: Vec<u8>,
    generation: i64,
    rotated_at: OffsetDateTime,
    confirmed_at: Option<OffsetDateTime>,
    expires_at: OffsetDateTime,
    remember_me: bool,
    revoked_at: Option<OffsetDateTime>,
    session_created_at: OffsetDateTime,
}

impl ChainRow {
    fn into_chain(self) -> Option<Chain> {
        Some(Chain {
            id: self.id.try_into().ok()?,
            user_id: self.user_id.try_into().ok()?,
            session_id: self.session_id.try_into().ok()?,
            secret_version: self.secret_version,
            seed: self.seed,
            remember_me: self.remember_me,
            session_created_at: self.session_created_at,
            state: ChainState {
                generation: self.generation,
                rotated_at: self.rotated_at,
                confirmed_at: self.confirmed_at,
                expires_at: self.expires_at,
                is_revoked: self.revoked_at.is_some(),
            },
        })
    }
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
