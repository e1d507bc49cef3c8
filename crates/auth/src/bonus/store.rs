//! All SQL of `auth.pending_bonuses`, `auth.bonus_mailboxes` and `auth.bonus_networks`.

use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Lets a bonus wait.
pub(super) async fn insert_pending(
    connection: &mut PgConnection,
    user: &UserId,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.pending_bonuses (user_id, created_at) VALUES ($1, $2)",
        user.as_str(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a bonus waits.
pub(crate) async fn exists_pending(connection: &mut PgConnection, user: &UserId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.pending_bonuses WHERE user_id = $1) AS "exists!""#,
        user.as_str()
    )
    .fetch_one(connection)
    .await?)
}

/// Takes a bonus that waits; false if none does. Of several at once, one gets it.
pub(crate) async fn delete_pending(connection: &mut PgConnection, user: &UserId) -> Result<bool, DbError> {
    let done = sqlx::query!("DELETE FROM auth.pending_bonuses WHERE user_id = $1", user.as_str())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Whether a mailbox has had its bonus, under any of its hashes.
pub(super) async fn exists_mailbox(
    connection: &mut PgConnection,
    hashes: &[Vec<u8>],
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.bonus_mailboxes WHERE mailbox_hash = ANY($1)) AS "exists!""#,
        hashes
    )
    .fetch_one(connection)
    .await?)
}

/// Notes that a mailbox has its bonus; false if it had it already. Since when is for people who look: nothing reads it.
pub(super) async fn insert_mailbox(
    connection: &mut PgConnection,
    hash: &[u8],
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "INSERT INTO auth.bonus_mailboxes (mailbox_hash, given_at) VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT bonus_mailboxes_pkey DO NOTHING",
        hash,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts a bonus of a network, unless it has had `limit` since `window` began. The count is held until the transaction ends,
/// so that several at once don't both find room.
pub(super) async fn hold_network(
    connection: &mut PgConnection,
    hash: &[u8],
    limit: i32,
    now: OffsetDateTime,
    window: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "INSERT INTO auth.bonus_networks (network_hash, used, began_at) VALUES ($1, 1, $3)
         ON CONFLICT ON CONSTRAINT bonus_networks_pkey DO UPDATE SET
             used = CASE WHEN bonus_networks.began_at <= $4 THEN 1 ELSE bonus_networks.used + 1 END,
             began_at = CASE WHEN bonus_networks.began_at <= $4 THEN $3 ELSE bonus_networks.began_at END
         WHERE bonus_networks.began_at <= $4 OR bonus_networks.used < $2",
        hash,
        limit,
        now,
        window,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes counts whose day is over, at most `limit`; says how many there were.
pub(crate) async fn delete_old_networks(
    connection: &mut PgConnection,
    window: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.bonus_networks WHERE network_hash IN (
             SELECT network_hash FROM auth.bonus_networks WHERE began_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
        window,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
