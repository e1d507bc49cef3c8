//! All SQL of `auth.users` and `auth.erased_mailboxes`.

use super::model::{Email, Role, User};
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Adds an account. The constraint `users_email_key` refuses a second one for an address.
pub(crate) async fn insert_user(connection: &mut PgConnection, user: &User) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.users (id, email, name, role, email_verified, image, created_at, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $7)",
        user.id.as_str(),
        user.email,
        user.name,
        user.role.as_str(),
        user.email_verified,
        user.image,
        user.created_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The account that may still act, by id.
pub(crate) async fn find_user(connection: &mut PgConnection, id: &UserId) -> Result<Option<User>, DbError> {
    let row = sqlx::query_as!(
        UserRow,
        "SELECT id, email, name, role, email_verified, image, created_at FROM auth.users WHERE id = $1 AND disabled_at IS NULL",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(UserRow::into_user))
}

/// The account that may still act, by id, locked until the transaction ends: what changes its protection takes turns.
pub(crate) async fn lock_user(connection: &mut PgConnection, id: &UserId) -> Result<Option<User>, DbError> {
    let row = sqlx::query_as!(
        UserRow,
        "SELECT id, email, name, role, email_verified, image, created_at FROM auth.users WHERE id = $1 AND disabled_at IS NULL FOR NO KEY UPDATE",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(UserRow::into_user))
}

/// The same, and nobody may write a row that names the account meanwhile: for when the address changes, which takes this lock anyway, and too
/// late not to meet a sign-in that has it half.
pub(crate) async fn lock_user_exclusively(
    connection: &mut PgConnection,
    id: &UserId,
) -> Result<Option<User>, DbError> {
    let row = sqlx::query_as!(
        UserRow,
        "SELECT id, email, name, role, email_verified, image, created_at FROM auth.users WHERE id = $1 AND disabled_at IS NULL FOR UPDATE",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(UserRow::into_user))
}

/// Changes what is given of name and picture, an empty text to none, and gives the account as it is now.
pub(super) async fn update_profile(
    connection: &mut PgConnection,
    id: &UserId,
    name: Option<&str>,
    image: Option<&str>,
    now: OffsetDateTime,
) -> Result<Option<User>, DbError> {
    let row = sqlx::query_as!(
        UserRow,
        "UPDATE auth.users SET name = CASE WHEN $2::text IS NULL THEN name ELSE nullif($2, '') END,
             image = CASE WHEN $3::text IS NULL THEN image ELSE nullif($3, '') END, updated_at = $4
         WHERE id = $1 AND disabled_at IS NULL RETURNING id, email, name, role, email_verified, image, created_at",
        id.as_str(),
        name,
        image,
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(UserRow::into_user))
}

/// The owner has proven the address.
pub(crate) async fn update_verified(
    connection: &mut PgConnection,
    id: &UserId,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.users SET email_verified = true, updated_at = $2 WHERE id = $1",
        id.as_str(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives an account another, proven address. The constraint `users_email_key` refuses one that another account has.
pub(crate) async fn update_email(
    connection: &mut PgConnection,
    id: &UserId,
    email: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.users SET email = $2, email_verified = true, updated_at = $3 WHERE id = $1",
        id.as_str(),
        email,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Leaves nothing of an account but its id. What stands for the address is none.
pub(super) async fn update_erased(
    connection: &mut PgConnection,
    id: &UserId,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.users SET email = 'deleted:' || id, name = NULL, image = NULL, email_verified = false, role = 'user',
             disabled_at = $2, deleted_at = $2, updated_at = $2
         WHERE id = $1",
        id.as_str(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Remembers that a mailbox had an account.
pub(super) async fn insert_erased_mailbox(
    connection: &mut PgConnection,
    hash: &[u8],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.erased_mailboxes (mailbox_hash, erased_at) VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT erased_mailboxes_pkey DO NOTHING",
        hash,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether one of the hashes is of a mailbox that had an account.
pub(super) async fn is_erased_mailbox(
    connection: &mut PgConnection,
    hashes: &[Vec<u8>],
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.erased_mailboxes WHERE mailbox_hash = ANY($1)) AS "is_erased!""#,
        hashes,
    )
    .fetch_one(connection)
    .await?)
}

/// An account with what a sign-in by password needs to know.
#[derive(Debug)]
pub(crate) struct PasswordAccount {
    pub(crate) user: User,
    /// PHC string; absent for an account without a password.
    pub(crate) password_hash: Option<String>,
    pub(crate) is_disabled: bool,
}

/// The account of an address.
pub(crate) async fn find_by_email(
    connection: &mut PgConnection,
    email: &Email,
) -> Result<Option<PasswordAccount>, DbError> {
    let row = sqlx::query!(
        r#"SELECT id, email, name, role, email_verified, image, users.created_at, disabled_at, hash AS "hash?"
           FROM auth.users LEFT JOIN auth.passwords ON user_id = id WHERE email = $1"#,
        email.as_str(),
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
        };
        Some(PasswordAccount {
            user: user.into_user()?,
            password_hash: row.hash,
            is_disabled: row.disabled_at.is_some(),
        })
    }))
}

/// Whether any account may administer now.
pub(crate) async fn exists_admin(connection: &mut PgConnection) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.users WHERE role = 'admin' AND disabled_at IS NULL) AS "exists!""#
    )
    .fetch_one(connection)
    .await?)
}

/// Makes an account an administrator's.
pub(crate) async fn update_role(
    connection: &mut PgConnection,
    id: &UserId,
    role: Role,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.users SET role = $2, updated_at = $3 WHERE id = $1",
        id.as_str(),
        role.as_str(),
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The columns of a user.
pub(crate) struct UserRow {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: Option<String>,
    pub(crate) role: String,
    pub(crate) email_verified: bool,
    pub(crate) image: Option<String>,
    pub(crate) created_at: OffsetDateTime,
}

impl UserRow {
    /// The user, if what is stored is one.
    pub(crate) fn into_user(self) -> Option<User> {
        Some(User {
            id: self.id.try_into().ok()?,
            email: self.email,
            name: self.name,
            role: Role::from_database(&self.role),
            email_verified: self.email_verified,
            image: self.image,
            created_at: self.created_at,
        })
    }
}
