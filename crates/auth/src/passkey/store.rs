//! All SQL of `auth.passkeys` and `auth.passkey_challenges`.

use super::ceremony::NewCredential;
use super::challenge::Bound;
use super::model::{ChallengeHash, Passkey, Purpose};
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Adds a challenge that waits.
pub(super) async fn insert_challenge(
    connection: &mut PgConnection,
    challenge: ChallengeHash,
    purpose: Purpose,
    bound: Option<Bound<'_>>,
    expires_at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.passkey_challenges (challenge_hash, purpose, user_id, bound_to, expires_at) VALUES ($1, $2, $3, $4, $5)",
        challenge.as_bytes(),
        purpose.as_str(),
        bound.map(|bound| bound.user.as_str()),
        bound.map(|bound| bound.within),
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Uses up a challenge that waits at `now`. False if none does, for this; of several at once, one gets it.
pub(super) async fn delete_challenge(
    connection: &mut PgConnection,
    challenge: ChallengeHash,
    purpose: Purpose,
    bound: Option<Bound<'_>>,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.passkey_challenges WHERE challenge_hash = $1 AND purpose = $2
         AND user_id IS NOT DISTINCT FROM $3 AND bound_to IS NOT DISTINCT FROM $4 AND expires_at > $5",
        challenge.as_bytes(),
        purpose.as_str(),
        bound.map(|bound| bound.user.as_str()),
        bound.map(|bound| bound.within),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes challenges that are past their time, at most `limit`; says how many.
pub(crate) async fn delete_expired(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.passkey_challenges WHERE challenge_hash IN (
             SELECT challenge_hash FROM auth.passkey_challenges WHERE expires_at <= $1 LIMIT $2)",
        now,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Adds a passkey. The constraint `passkeys_credential_id_key` refuses a credential that anybody has registered.
pub(super) async fn insert_passkey(
    connection: &mut PgConnection,
    user: &UserId,
    session: &SessionId,
    passkey: &Passkey,
    credential: &NewCredential,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.passkeys (id, user_id, credential_id, public_key, sign_count, is_backup_eligible, is_backed_up, transports, name, created_at, added_in)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        passkey.id,
        user.as_str(),
        credential.id,
        credential.public_key,
        i64::from(credential.sign_count),
        credential.is_backup_eligible,
        credential.is_backed_up,
        &passkey.transports,
        passkey.name,
        passkey.created_at,
        session.as_str(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// How many passkeys a user has.
pub(super) async fn count_passkeys(connection: &mut PgConnection, user: &UserId) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM auth.passkeys WHERE user_id = $1"#,
        user.as_str()
    )
    .fetch_one(connection)
    .await?)
}

/// A user's passkeys, the oldest first.
pub(crate) async fn list_passkeys(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<Passkey>, DbError> {
    Ok(sqlx::query_as!(
        Passkey,
        "SELECT id, name, is_backed_up AS backed_up, transports, created_at, last_used_at FROM auth.passkeys
         WHERE user_id = $1 ORDER BY created_at, id",
        user.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// What a browser finds a passkey by.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) credential_id: Vec<u8>,
    pub(super) transports: Vec<String>,
}

/// What a browser finds a user's passkeys by.
pub(super) async fn list_descriptors(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<Descriptor>, DbError> {
    Ok(sqlx::query_as!(
        Descriptor,
        "SELECT credential_id, transports FROM auth.passkeys WHERE user_id = $1 ORDER BY created_at, id",
        user.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// A passkey as a sign-in is judged by.
#[derive(Debug)]
pub(super) struct StoredPasskey {
    pub(super) id: Uuid,
    pub(super) user_id: UserId,
    pub(super) credential_id: Vec<u8>,
    pub(super) public_key: Vec<u8>,
    pub(super) sign_count: u32,
    pub(super) is_backup_eligible: bool,
}

/// Whose passkey a credential is.
pub(super) async fn find_owner(
    connection: &mut PgConnection,
    credential_id: &[u8],
) -> Result<Option<UserId>, DbError> {
    let owner =
        sqlx::query_scalar!("SELECT user_id FROM auth.passkeys WHERE credential_id = $1", credential_id)
            .fetch_optional(connection)
            .await?;
    owner.map(|owner| owner.try_into().map_err(|_| DbError::unreadable("auth.passkeys"))).transpose()
}

/// The passkey of a credential. Who signs in with it too waits until the transaction ends.
pub(super) async fn lock_credential(
    connection: &mut PgConnection,
    credential_id: &[u8],
) -> Result<Option<StoredPasskey>, DbError> {
    let row = sqlx::query!(
        "SELECT id, user_id, credential_id, public_key, sign_count, is_backup_eligible FROM auth.passkeys WHERE credential_id = $1
         FOR UPDATE",
        credential_id,
    )
    .fetch_optional(connection)
    .await?;
    let unreadable = || DbError::unreadable("auth.passkeys");
    row.map(|row| {
        Ok(StoredPasskey {
            id: row.id,
            user_id: row.user_id.try_into().map_err(|_| unreadable())?,
            credential_id: row.credential_id,
            public_key: row.public_key,
            sign_count: row.sign_count.try_into().map_err(|_| unreadable())?,
            is_backup_eligible: row.is_backup_eligible,
        })
    })
    .transpose()
}

/// Notes that somebody signed in with a passkey.
pub(super) async fn update_used(
    connection: &mut PgConnection,
    id: Uuid,
    sign_count: u32,
    is_backed_up: bool,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.passkeys SET sign_count = $2, is_backed_up = $3, last_used_at = $4 WHERE id = $1",
        id,
        i64::from(sign_count),
        is_backed_up,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Names a passkey. None if the user has none of the id.
pub(super) async fn update_name(
    connection: &mut PgConnection,
    user: &UserId,
    id: Uuid,
    name: &str,
) -> Result<Option<Passkey>, DbError> {
    Ok(sqlx::query_as!(
        Passkey,
        "UPDATE auth.passkeys SET name = $3 WHERE user_id = $1 AND id = $2
         RETURNING id, name, is_backed_up AS backed_up, transports, created_at, last_used_at",
        user.as_str(),
        id,
        name,
    )
    .fetch_optional(connection)
    .await?)
}

/// Removes a passkey. False if the user has none of the id.
pub(super) async fn delete_passkey(
    connection: &mut PgConnection,
    user: &UserId,
    id: Uuid,
) -> Result<bool, DbError> {
    let done = sqlx::query!("DELETE FROM auth.passkeys WHERE user_id = $1 AND id = $2", user.as_str(), id)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes all of a user's passkeys; says which.
pub(crate) async fn delete_passkeys(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<Uuid>, DbError> {
    Ok(sqlx::query_scalar!("DELETE FROM auth.passkeys WHERE user_id = $1 RETURNING id", user.as_str())
        .fetch_all(connection)
        .await?)
}

/// A passkey that was removed.
#[derive(Debug)]
pub(crate) struct RemovedPasskey {
    pub(crate) id: Uuid,
    pub(crate) created_at: OffsetDateTime,
}

/// Removes a user's passkeys that were added in some sessions since `since`; says which.
pub(crate) async fn delete_passkeys_added_in(
    connection: &mut PgConnection,
    user: &UserId,
    sessions: &[String],
    since: OffsetDateTime,
) -> Result<Vec<RemovedPasskey>, DbError> {
    Ok(sqlx::query_as!(
        RemovedPasskey,
        "DELETE FROM auth.passkeys WHERE user_id = $1 AND added_in = ANY($2) AND created_at >= $3 RETURNING id, created_at",
        user.as_str(),
        sessions,
        since,
    )
    .fetch_all(connection)
    .await?)
}
