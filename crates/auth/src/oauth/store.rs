//! All SQL of `auth.accounts` and `auth.finished_flows`.

use crate::account::model::User;
use crate::account::store::UserRow;
use mana_kernel::{SessionId, UserId};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A link as its owner sees it.
#[derive(Debug)]
pub(crate) struct LinkedAccount {
    pub(super) id: Uuid,
    pub(super) provider: String,
    pub(super) email: Option<String>,
    pub(super) created_at: OffsetDateTime,
    pub(super) last_used_at: OffsetDateTime,
}

/// A link to be made.
pub(crate) struct NewAccount<'a> {
    pub(crate) id: Uuid,
    pub(crate) user: &'a UserId,
    pub(crate) provider: &'a str,
    pub(crate) issuer: &'a str,
    pub(crate) subject: &'a str,
    pub(crate) email: Option<&'a str>,
    /// The session that asked for it: if that turns out to be a stranger's, so does the link.
    pub(crate) linked_in: Option<&'a SessionId>,
    pub(crate) now: OffsetDateTime,
}

/// The link of an identity, and whose it is.
pub(super) struct FoundAccount {
    pub(super) id: Uuid,
    pub(super) user: User,
    pub(super) is_disabled: bool,
}

/// Whose an identity is.
pub(super) async fn find_account(
    connection: &mut PgConnection,
    issuer: &str,
    subject: &str,
) -> Result<Option<FoundAccount>, DbError> {
    let row = sqlx::query!(
        r#"SELECT accounts.id AS account_id, users.id, users.email, name, role, email_verified, image, users.created_at,
                  ways_in_epoch, disabled_at IS NOT NULL AS "is_disabled!"
           FROM auth.accounts JOIN auth.users ON users.id = user_id WHERE issuer = $1 AND subject = $2"#,
        issuer,
        subject,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(|row| {
        let user = UserRow {
            id: row.id,
            email: row.email,
            name: row.name,
            role: row.role,
            email_verified: row.email_verified,
            image: row.image,
            created_at: row.created_at,
            ways_in_epoch: row.ways_in_epoch,
        };
        Some(FoundAccount { id: row.account_id, user: user.into_user()?, is_disabled: row.is_disabled })
    }))
}

/// Whether a user has a link of an issuer.
pub(super) async fn exists_account_of(
    connection: &mut PgConnection,
    user: &UserId,
    issuer: &str,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.accounts WHERE user_id = $1 AND issuer = $2) AS "exists!""#,
        user.as_str(),
        issuer,
    )
    .fetch_one(connection)
    .await?)
}

/// Adds a link. The constraint `accounts_issuer_subject_key` refuses a second one of an identity.
pub(crate) async fn insert_account(
    connection: &mut PgConnection,
    account: &NewAccount<'_>,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.accounts (id, user_id, provider, issuer, subject, email, created_at, last_used_at, linked_in)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8)",
        account.id,
        account.user.as_str(),
        account.provider,
        account.issuer,
        account.subject,
        account.email,
        account.now,
        account.linked_in.map(SessionId::as_str),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that a link was used, and what the provider gave and told this time. False if it is gone.
pub(super) async fn update_used(
    connection: &mut PgConnection,
    id: Uuid,
    email: Option<&str>,
    tokens: Option<(&[u8], &str)>,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let (sealed, version) = tokens.unzip();
    let done = sqlx::query!(
        "UPDATE auth.accounts SET email = coalesce($2, email), tokens_sealed = coalesce($3, tokens_sealed),
             secret_version = coalesce($4, secret_version), last_used_at = $5 WHERE id = $1",
        id,
        email,
        sealed,
        version,
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A user's links, the oldest first.
pub(crate) async fn list_accounts(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<LinkedAccount>, DbError> {
    Ok(sqlx::query_as!(
        LinkedAccount,
        "SELECT id, provider, email, created_at, last_used_at FROM auth.accounts WHERE user_id = $1 ORDER BY created_at, id LIMIT 100",
        user.as_str(),
    )
    .fetch_all(connection)
    .await?)
}

/// Whether the user can sign in with another service.
pub(crate) async fn exists_account(connection: &mut PgConnection, user: &UserId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.accounts WHERE user_id = $1) AS "exists!""#,
        user.as_str()
    )
    .fetch_one(connection)
    .await?)
}

/// A link that nobody else takes away now.
pub(super) struct HeldAccount {
    pub(super) id: Uuid,
    pub(super) provider: String,
}

/// A user's links. Whoever else asks for them, to take one away, waits until the transaction ends.
pub(super) async fn lock_accounts(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<HeldAccount>, DbError> {
    Ok(sqlx::query_as!(
        HeldAccount,
        "SELECT id, provider FROM auth.accounts WHERE user_id = $1 ORDER BY id FOR UPDATE",
        user.as_str()
    )
    .fetch_all(connection)
    .await?)
}

/// Takes all of a user's links away.
pub(crate) async fn delete_accounts_of(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.accounts WHERE user_id = $1", user.as_str()).execute(connection).await?;
    Ok(())
}

/// A link that was taken away.
#[derive(Debug)]
pub(crate) struct RemovedAccount {
    pub(crate) provider: String,
    pub(crate) created_at: OffsetDateTime,
}

/// Takes away what was linked to a user's account within some sessions, and says what.
pub(crate) async fn delete_accounts_linked_in(
    connection: &mut PgConnection,
    user: &UserId,
    sessions: &[String],
) -> Result<Vec<RemovedAccount>, DbError> {
    Ok(sqlx::query_as!(
        RemovedAccount,
        "DELETE FROM auth.accounts WHERE user_id = $1 AND linked_in = ANY($2) RETURNING provider, created_at",
        user.as_str(),
        sessions,
    )
    .fetch_all(connection)
    .await?)
}

/// Takes a link away.
pub(super) async fn delete_account(connection: &mut PgConnection, id: Uuid) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.accounts WHERE id = $1", id).execute(connection).await?;
    Ok(())
}

/// Whether a round trip came back, or a token was used up.
pub(super) async fn exists_finished(connection: &mut PgConnection, hash: &[u8]) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.finished_flows WHERE state_hash = $1) AS "is_finished!""#,
        hash
    )
    .fetch_one(connection)
    .await?)
}

/// Notes that a round trip came back, or that a token was used up. False if it had before.
pub(super) async fn insert_finished(
    connection: &mut PgConnection,
    state_hash: &[u8],
    expires_at: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "INSERT INTO auth.finished_flows (state_hash, expires_at) VALUES ($1, $2) ON CONFLICT ON CONSTRAINT finished_flows_pkey DO NOTHING",
        state_hash,
        expires_at,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets round trips that could not come back any more before `before`, at most `limit`; says how many there were.
pub(crate) async fn delete_finished_before(
    connection: &mut PgConnection,
    before: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "DELETE FROM auth.finished_flows WHERE state_hash IN (
             SELECT state_hash FROM auth.finished_flows WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
        before,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Sealed tokens as they are stored.
pub(super) struct SealedTokens {
    pub(super) id: Uuid,
    pub(super) sealed: Vec<u8>,
    pub(super) version: String,
}

/// Tokens behind `after` that are sealed under another version than `version`, at most `limit`. Nobody else changes them until the
/// transaction ends.
pub(super) async fn lock_sealed_otherwise(
    connection: &mut PgConnection,
    version: &str,
    after: Uuid,
    limit: i64,
) -> Result<Vec<SealedTokens>, DbError> {
    Ok(sqlx::query_as!(
        SealedTokens,
        r#"SELECT id, tokens_sealed AS "sealed!", secret_version AS "version!" FROM auth.accounts
           WHERE secret_version <> $1 AND id > $2 ORDER BY id LIMIT $3 FOR UPDATE"#,
        version,
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Replaces sealed tokens.
pub(super) async fn update_sealed(
    connection: &mut PgConnection,
    id: Uuid,
    sealed: &[u8],
    version: &str,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.accounts SET tokens_sealed = $2, secret_version = $3 WHERE id = $1",
        id,
        sealed,
        version,
    )
    .execute(connection)
    .await?;
    Ok(())
}
