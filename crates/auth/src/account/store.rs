//! All SQL of `auth.users`.

use super::model::{Email, Role, User};
use crate::password::Scheme;
use crate::password::store::read_schemes;
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use std::collections::HashSet;
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
        "SELECT id, email, name, role, email_verified, image, created_at, ways_in_epoch FROM auth.users WHERE id = $1 AND disabled_at IS NULL",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(UserRow::into_user))
}

/// The account that may still act, by id, locked until the transaction ends: what changes its protection takes turns.
pub(crate) async fn lock_user(connection: &mut PgConnection, id: &UserId) -> Result<Option<User>, DbError> {
    Ok(lock_account(connection, id).await?.and_then(Account::who_may_act))
}

/// The same, and nobody may write a row that names the account meanwhile: for when the address changes, which takes this lock anyway, and too
/// late not to meet a sign-in that has it half.
pub(crate) async fn lock_user_exclusively(
    connection: &mut PgConnection,
    id: &UserId,
) -> Result<Option<User>, DbError> {
    Ok(lock_account_exclusively(connection, id).await?.and_then(Account::who_may_act))
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
         WHERE id = $1 AND disabled_at IS NULL RETURNING id, email, name, role, email_verified, image, created_at, ways_in_epoch",
        id.as_str(),
        name,
        image,
        now,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(UserRow::into_user))
}

/// Gives an account another address, which is yet to be marked as proven. The constraint `users_email_key` refuses one that another account has.
pub(crate) async fn update_email(
    connection: &mut PgConnection,
    id: &UserId,
    email: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.users SET email = $2, email_verified = false, updated_at = $3 WHERE id = $1",
        id.as_str(),
        email,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that the password is another, or none any more, and says the how manieth it is now. Whoever calls has locked the account: a sign-in
/// by the one before opens nothing from then on.
pub(crate) async fn update_ways_in(connection: &mut PgConnection, id: &UserId) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(
        "UPDATE auth.users SET ways_in_epoch = ways_in_epoch + 1 WHERE id = $1 RETURNING ways_in_epoch",
        id.as_str(),
    )
    .fetch_one(connection)
    .await?)
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
        r#"SELECT id, email, name, role, email_verified, image, users.created_at, ways_in_epoch, disabled_at, hash AS "hash?"
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
            ways_in_epoch: row.ways_in_epoch,
        };
        Some(PasswordAccount {
            user: user.into_user()?,
            password_hash: row.hash,
            is_disabled: row.disabled_at.is_some(),
        })
    }))
}

/// What a sign-in by password needs to know of an address: its account, if it has one, and how passwords of imported accounts are still
/// hashed, whoever's they are. One statement, the same for every address: the schemes are a step along an index for each, and one where
/// nothing was imported.
pub(crate) async fn find_for_sign_in(
    connection: &mut PgConnection,
    email: Option<&Email>,
) -> Result<(Option<PasswordAccount>, Vec<Scheme>), DbError> {
    let row = sqlx::query!(
        r#"WITH RECURSIVE step (scheme) AS (
               SELECT min(scheme) FROM auth.imported_passwords
               UNION ALL
               SELECT (SELECT min(imported.scheme) FROM auth.imported_passwords imported WHERE imported.scheme > step.scheme)
               FROM step WHERE step.scheme IS NOT NULL
           )
           SELECT schemes.names AS "schemes!", users.id AS "id?", email AS "email?", name, role AS "role?", email_verified AS "email_verified?",
               image, users.created_at AS "created_at?", ways_in_epoch AS "ways_in_epoch?", disabled_at, hash AS "hash?"
           FROM (SELECT coalesce(array_agg(scheme) FILTER (WHERE scheme IS NOT NULL), '{}') AS names FROM step) schemes
               LEFT JOIN auth.users ON users.email = $1
               LEFT JOIN auth.passwords ON user_id = users.id"#,
        email.map(Email::as_str),
    )
    .fetch_one(connection)
    .await?;
    let schemes = read_schemes(&row.schemes)?;
    let (Some(id), Some(email), Some(role), Some(email_verified), Some(created_at), Some(ways_in_epoch)) =
        (row.id, row.email, row.role, row.email_verified, row.created_at, row.ways_in_epoch)
    else {
        return Ok((None, schemes));
    };
    let (name, image) = (row.name, row.image);
    let user = UserRow { id, email, name, role, email_verified, image, created_at, ways_in_epoch };
    let account = user.into_user().map(|user| PasswordAccount {
        user,
        password_hash: row.hash,
        is_disabled: row.disabled_at.is_some(),
    });
    Ok((account, schemes))
}

/// An account, whether or not it may still act.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) user: User,
    /// Since when it may not act.
    pub(crate) disabled_at: Option<OffsetDateTime>,
    /// Since when nothing is left of it but its id.
    pub(crate) deleted_at: Option<OffsetDateTime>,
}

impl Account {
    /// The user, unless the account is disabled.
    fn who_may_act(self) -> Option<User> {
        self.disabled_at.is_none().then_some(self.user)
    }
}

struct AccountRow {
    id: String,
    email: String,
    name: Option<String>,
    role: String,
    email_verified: bool,
    image: Option<String>,
    created_at: OffsetDateTime,
    ways_in_epoch: i64,
    disabled_at: Option<OffsetDateTime>,
    deleted_at: Option<OffsetDateTime>,
}

impl AccountRow {
    fn into_account(self) -> Option<Account> {
        let Self { disabled_at, deleted_at, .. } = self;
        let user = UserRow {
            id: self.id,
            email: self.email,
            name: self.name,
            role: self.role,
            email_verified: self.email_verified,
            image: self.image,
            created_at: self.created_at,
            ways_in_epoch: self.ways_in_epoch,
        };
        Some(Account { user: user.into_user()?, disabled_at, deleted_at })
    }
}

/// An account by id.
pub(crate) async fn find_account(
    connection: &mut PgConnection,
    id: &UserId,
) -> Result<Option<Account>, DbError> {
    let row = sqlx::query_as!(
        AccountRow,
        "SELECT id, email, name, role, email_verified, image, created_at, ways_in_epoch, disabled_at, deleted_at FROM auth.users WHERE id = $1",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(AccountRow::into_account))
}

/// An account by id, which nobody else changes or signs in to until the transaction ends.
pub(crate) async fn lock_account(
    connection: &mut PgConnection,
    id: &UserId,
) -> Result<Option<Account>, DbError> {
    let row = sqlx::query_as!(
        AccountRow,
        "SELECT id, email, name, role, email_verified, image, created_at, ways_in_epoch, disabled_at, deleted_at FROM auth.users
         WHERE id = $1 FOR NO KEY UPDATE",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(AccountRow::into_account))
}

/// The same, and nobody may write a row that names the account meanwhile: for when it is erased, address and all.
pub(crate) async fn lock_account_exclusively(
    connection: &mut PgConnection,
    id: &UserId,
) -> Result<Option<Account>, DbError> {
    let row = sqlx::query_as!(
        AccountRow,
        "SELECT id, email, name, role, email_verified, image, created_at, ways_in_epoch, disabled_at, deleted_at FROM auth.users
         WHERE id = $1 FOR UPDATE",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.and_then(AccountRow::into_account))
}

/// Which accounts.
#[derive(Debug, Default)]
pub(crate) struct AccountFilter<'a> {
    /// Whose address begins so.
    pub(crate) email_prefix: &'a str,
    pub(crate) id: Option<&'a UserId>,
    pub(crate) role: Option<Role>,
    pub(crate) is_disabled: Option<bool>,
    pub(crate) is_deleted: Option<bool>,
    /// Those after this address.
    pub(crate) after: &'a str,
    pub(crate) limit: i64,
}

/// Accounts in the order of their addresses, by code points.
pub(crate) async fn list_accounts(
    connection: &mut PgConnection,
    filter: &AccountFilter<'_>,
) -> Result<Vec<Account>, DbError> {
    let rows = sqlx::query_as!(
        AccountRow,
        r#"SELECT id, email, name, role, email_verified, image, created_at, ways_in_epoch, disabled_at, deleted_at FROM auth.users
           WHERE email COLLATE "C" >= $1 AND email COLLATE "C" < $1 || chr(1114111) AND email COLLATE "C" > $2
               AND ($3::text IS NULL OR id = $3)
               AND (NOT $4 OR role <> 'user') AND ($5::text IS NULL OR role = $5)
               AND ($6::boolean IS NULL OR (disabled_at IS NOT NULL) = $6)
               AND ($8::boolean IS NULL OR (deleted_at IS NOT NULL) = $8)
           ORDER BY email COLLATE "C" LIMIT $7"#,
        filter.email_prefix,
        filter.after,
        filter.id.map(UserId::as_str),
        filter.role.is_some_and(|role| role != Role::User),
        filter.role.map(Role::as_str),
        filter.is_disabled,
        filter.limit,
        filter.is_deleted,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().filter_map(AccountRow::into_account).collect())
}

/// Shuts an account, or opens it again. The database lets nobody open one that is deleted.
pub(crate) async fn update_disabled(
    connection: &mut PgConnection,
    id: &UserId,
    disabled_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.users SET disabled_at = $2, updated_at = $3 WHERE id = $1",
        id.as_str(),
        disabled_at,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether a user administrates now, and goes on to until the transaction ends.
pub(crate) async fn hold_admin(connection: &mut PgConnection, id: &UserId) -> Result<bool, DbError> {
    let held = sqlx::query_scalar!(
        "SELECT id FROM auth.users WHERE id = $1 AND role = 'admin' AND disabled_at IS NULL FOR SHARE",
        id.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    Ok(held.is_some())
}

/// Whether anybody but this user may administer now.
pub(crate) async fn exists_admin_besides(
    connection: &mut PgConnection,
    id: &UserId,
) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.users WHERE role = 'admin' AND role <> 'user' AND disabled_at IS NULL AND id <> $1) AS "exists!""#,
        id.as_str(),
    )
    .fetch_one(connection)
    .await?)
}

/// Whether any account may administer now.
pub(crate) async fn exists_admin(connection: &mut PgConnection) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.users WHERE role = 'admin' AND disabled_at IS NULL) AS "exists!""#
    )
    .fetch_one(connection)
    .await?)
}

/// How many may administer now.
pub(crate) async fn count_admins(connection: &mut PgConnection) -> Result<i64, DbError> {
    // The first condition is that of the index.
    Ok(sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM auth.users WHERE role <> 'user' AND role = 'admin' AND disabled_at IS NULL"#
    )
    .fetch_one(connection)
    .await?)
}

/// Gives an account another role.
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

/// Notes that the address is proven; false if it was, or the account has another one.
pub(crate) async fn update_verified(
    connection: &mut PgConnection,
    id: &UserId,
    email: &str,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE auth.users SET email_verified = true, updated_at = $3 WHERE id = $1 AND email = $2 AND NOT email_verified",
        id.as_str(),
        email,
        now
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// An account that comes from elsewhere.
pub(crate) struct ImportedUser<'a> {
    pub(crate) user: &'a User,
    pub(crate) disabled_at: Option<OffsetDateTime>,
}

/// Adds accounts, but for those whose id or address is taken, and says which ids it added.
#[expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]
pub(crate) async fn insert_imported(
    connection: &mut PgConnection,
    users: &[ImportedUser<'_>],
    now: OffsetDateTime,
) -> Result<HashSet<String>, DbError> {
    let of = |column: fn(&ImportedUser<'_>) -> String| users.iter().map(column).collect::<Vec<_>>();
    let maybe =
        |column: fn(&ImportedUser<'_>) -> Option<String>| users.iter().map(column).collect::<Vec<_>>();
    let inserted = sqlx::query_scalar!(
        "INSERT INTO auth.users (id, email, name, role, email_verified, image, created_at, updated_at, disabled_at)
         SELECT id, email, name, role, email_verified, image, created_at, $9, disabled_at
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[], $6::text[], $7::timestamptz[], $8::timestamptz[])
             AS imported (id, email, name, role, email_verified, image, created_at, disabled_at)
         ON CONFLICT DO NOTHING RETURNING id",
        &of(|row| row.user.id.as_str().to_owned()),
        &of(|row| row.user.email.clone()),
        &maybe(|row| row.user.name.clone()) as &[Option<String>],
        &of(|row| row.user.role.as_str().to_owned()),
        &users.iter().map(|row| row.user.email_verified).collect::<Vec<_>>(),
        &maybe(|row| row.user.image.clone()) as &[Option<String>],
        &users.iter().map(|row| row.user.created_at).collect::<Vec<_>>(),
        &users.iter().map(|row| row.disabled_at).collect::<Vec<_>>() as &[Option<OffsetDateTime>],
        now,
    )
    .fetch_all(connection)
    .await?;
    Ok(inserted.into_iter().collect())
}

/// Ids and addresses of the accounts that have one of the ids or of the addresses.
pub(crate) async fn list_by_ids_or_addresses(
    connection: &mut PgConnection,
    ids: &[String],
    addresses: &[String],
) -> Result<Vec<(String, String)>, DbError> {
    let rows = sqlx::query!(
        "SELECT id, email FROM auth.users WHERE id = ANY($1) OR email = ANY($2)",
        ids,
        addresses
    )
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(|row| (row.id, row.email)).collect())
}

/// How many accounts there are.
pub(crate) async fn count_users(connection: &mut PgConnection) -> Result<i64, DbError> {
    Ok(sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM auth.users WHERE deleted_at IS NULL"#)
        .fetch_one(connection)
        .await?)
}

/// An account with all that another installation needs of it.
pub(crate) struct ExportedUser {
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) name: Option<String>,
    pub(crate) role: String,
    pub(crate) email_verified: bool,
    pub(crate) image: Option<String>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) disabled_at: Option<OffsetDateTime>,
    pub(crate) hash: Option<String>,
}

/// The accounts whose ids come after `after`, in the order of ids.
pub(crate) async fn list_to_export(
    connection: &mut PgConnection,
    after: &str,
    limit: i64,
) -> Result<Vec<ExportedUser>, DbError> {
    Ok(sqlx::query_as!(
        ExportedUser,
        r#"SELECT id, email, name, role, email_verified, image, created_at, disabled_at, hash AS "hash?"
           FROM auth.users LEFT JOIN auth.passwords ON user_id = id WHERE id > $1 AND deleted_at IS NULL ORDER BY id LIMIT $2"#,
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
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
    pub(crate) ways_in_epoch: i64,
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
            ways_in_epoch: self.ways_in_epoch,
        })
    }
}
