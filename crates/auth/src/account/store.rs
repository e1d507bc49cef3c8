//! All SQL of `auth.users`.

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

/// Lets nobody else in who changes by what the account is signed in to, until the transaction ends.
pub(crate) async fn lock_user(connection: &mut PgConnection, id: &UserId) -> Result<(), DbError> {
    sqlx::query!("SELECT FROM auth.users WHERE id = $1 FOR NO KEY UPDATE", id.as_str())
        .execute(connection)
        .await?;
    Ok(())
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
