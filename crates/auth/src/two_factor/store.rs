//! All SQL of `auth.two_factor_auth`, `auth.recovery_codes`, `auth.pending_sign_ins` and `auth.trusted_devices`.

use super::model::{ChallengeTokenHash, Factors};
use crate::session::proof::Proof;
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// What a user has set up.
pub(crate) async fn find_factors(connection: &mut PgConnection, user: &UserId) -> Result<Factors, DbError> {
    let row = sqlx::query!(
        r#"SELECT EXISTS (SELECT FROM auth.two_factor_auth WHERE user_id = $1 AND confirmed_at IS NOT NULL) AS "has_totp!",
                  (SELECT count(*) FROM auth.recovery_codes WHERE user_id = $1) AS "recovery_codes!""#,
        user.as_str(),
    )
    .fetch_one(connection)
    .await?;
    Ok(Factors { has_totp: row.has_totp, recovery_codes: row.recovery_codes, has_passkey: false })
}

/// A sign-in whose first factor was right.
#[derive(Debug)]
pub(crate) struct PendingSignIn {
    pub(crate) user_id: UserId,
    pub(crate) proof: Proof,
    pub(crate) device_id: Option<String>,
    pub(crate) device_name: Option<String>,
    pub(crate) remember_me: bool,
    pub(crate) created_at: OffsetDateTime,
}

/// Adds a sign-in that waits.
pub(super) async fn insert_pending(
    connection: &mut PgConnection,
    token: ChallengeTokenHash,
    pending: &PendingSignIn,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.pending_sign_ins (token_hash, user_id, proven_by, device_id, device_name, remember_me, created_at, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        token.as_bytes(),
        pending.user_id.as_str(),
        &pending.proof.names(),
        pending.device_id,
        pending.device_name,
        pending.remember_me,
        pending.created_at,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether one of the tokens marks a browser that the user trusts at `now`.
pub(super) async fn is_trusted_device(
    connection: &mut PgConnection,
    user: &UserId,
    tokens: &[Vec<u8>],
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.trusted_devices WHERE token_hash = ANY($1) AND user_id = $2 AND expires_at > $3) AS "is_trusted!""#,
        tokens,
        user.as_str(),
        now,
    )
    .fetch_one(connection)
    .await?)
}

/// Forgets which browsers are trusted and which sign-ins wait: for when a password or a factor changes, or the account ends.
pub(crate) async fn delete_half_proofs(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.pending_sign_ins WHERE user_id = $1", user.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM auth.trusted_devices WHERE user_id = $1", user.as_str())
        .execute(connection)
        .await?;
    Ok(())
}
