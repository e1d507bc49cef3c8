//! All SQL of `auth.outgoing_mails` and `auth.mail_budgets`.

use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// A mail as it waits.
#[derive(Debug)]
pub(super) struct WaitingMail {
    pub(super) id: Uuid,
    pub(super) template: String,
    pub(super) sealed: Vec<u8>,
    pub(super) secret_version: String,
    /// With the one that it was claimed for.
    pub(super) attempts: i32,
    pub(super) created_at: OffsetDateTime,
}

/// A mail to be written down.
pub(super) struct NewMail<'a> {
    pub(super) id: Uuid,
    pub(super) user: Option<&'a UserId>,
    pub(super) template: &'a str,
    pub(super) sealed: &'a [u8],
    pub(super) secret_version: &'a str,
    pub(super) now: OffsetDateTime,
}

/// Adds a mail, due now.
pub(super) async fn insert_mail(connection: &mut PgConnection, mail: &NewMail<'_>) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.outgoing_mails (id, user_id, template, sealed, secret_version, next_attempt_at, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $6)",
        mail.id,
        mail.user.map(UserId::as_str),
        mail.template,
        mail.sealed,
        mail.secret_version,
        mail.now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Claims at most `limit` mails that are due at `now`, those first that have waited longest: nobody else gets them until
/// `leased_until`. Counts the attempt.
pub(super) async fn update_claimed(
    connection: &mut PgConnection,
    now: OffsetDateTime,
    leased_until: OffsetDateTime,
    limit: i64,
) -> Result<Vec<WaitingMail>, DbError> {
    Ok(sqlx::query_as!(
        WaitingMail,
        "WITH due AS MATERIALIZED (
             SELECT id FROM auth.outgoing_mails WHERE next_attempt_at <= $1 ORDER BY next_attempt_at LIMIT $3 FOR UPDATE SKIP LOCKED
         )
         UPDATE auth.outgoing_mails AS mail SET attempts = attempts + 1, next_attempt_at = $2 FROM due WHERE mail.id = due.id
         RETURNING mail.id, template, sealed, secret_version, attempts, created_at",
        now,
        leased_until,
        limit,
    )
    .fetch_all(connection)
    .await?)
}

/// Lets a claimed mail wait until `at`; not if somebody else has claimed it since.
pub(super) async fn update_next_attempt(
    connection: &mut PgConnection,
    mail: &WaitingMail,
    at: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.outgoing_mails SET next_attempt_at = $3 WHERE id = $1 AND attempts = $2",
        mail.id,
        mail.attempts,
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes a mail off the queue, because it is sent or given up.
pub(super) async fn delete_mail(connection: &mut PgConnection, id: Uuid) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.outgoing_mails WHERE id = $1", id).execute(connection).await?;
    Ok(())
}

/// Takes a user's mails off the queue: the account is gone. One that is being sent right now is sent.
pub(crate) async fn delete_mails_of(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.outgoing_mails WHERE user_id = $1", user.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// How many mails wait, and since when the oldest.
pub(super) async fn find_backlog(
    connection: &mut PgConnection,
) -> Result<(i64, Option<OffsetDateTime>), DbError> {
    let row =
        sqlx::query!(r#"SELECT count(*) AS "waiting!", min(created_at) AS oldest FROM auth.outgoing_mails"#)
            .fetch_one(connection)
            .await?;
    Ok((row.waiting, row.oldest))
}

/// Counts one more mail to an address, and says how many that makes since the window began; a window that began at
/// `window_began_before` or earlier is over. Whoever counts for the same address waits until the transaction ends.
pub(super) async fn hold_budget(
    connection: &mut PgConnection,
    address_hash: &[u8],
    template: &str,
    now: OffsetDateTime,
    window_began_before: OffsetDateTime,
) -> Result<i32, DbError> {
    Ok(sqlx::query_scalar!(
        "INSERT INTO auth.mail_budgets AS budget (address_hash, template, used, began_at) VALUES ($1, $2, 1, $3)
         ON CONFLICT (address_hash, template) DO UPDATE SET
             used = CASE WHEN budget.began_at <= $4 THEN 1 ELSE LEAST(budget.used, 1000000) + 1 END,
             began_at = CASE WHEN budget.began_at <= $4 THEN $3 ELSE budget.began_at END
         RETURNING used",
        address_hash,
        template,
        now,
        window_began_before,
    )
    .fetch_one(connection)
    .await?)
}

/// Forgets counts whose window began at `window_began_before` or earlier, at most `limit`; says how many there were.
pub(crate) async fn delete_old_budgets(
    connection: &mut PgConnection,
    window_began_before: OffsetDateTime,
    limit: i64,
) -> Result<u64, DbError> {
    let done = sqlx::query!(
        "WITH old AS MATERIALIZED (
             SELECT address_hash, template FROM auth.mail_budgets WHERE began_at <= $1 ORDER BY began_at LIMIT $2 FOR UPDATE SKIP LOCKED
         )
         DELETE FROM auth.mail_budgets AS budget USING old
         WHERE budget.address_hash = old.address_hash AND budget.template = old.template",
        window_began_before,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
