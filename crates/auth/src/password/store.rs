//! All SQL of `auth.passwords` but the read at sign-in, which is one with the account's (account/store.rs), and of
//! `auth.imported_passwords`, which says how those passwords are hashed that are not hashed by this program yet.

use super::scheme::Scheme;
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Whether an account has a password.
pub(crate) async fn exists_password(connection: &mut PgConnection, user: &UserId) -> Result<bool, DbError> {
    Ok(sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM auth.passwords WHERE user_id = $1) AS "exists!""#,
        user.as_str(),
    )
    .fetch_one(connection)
    .await?)
}

/// Gives an account another password, or its first one.
pub(crate) async fn replace_password(
    connection: &mut PgConnection,
    user: &UserId,
    hash: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.passwords (user_id, hash, updated_at) VALUES ($1, $2, $3)
         ON CONFLICT ON CONSTRAINT passwords_pkey DO UPDATE SET hash = excluded.hash, updated_at = excluded.updated_at",
        user.as_str(),
        hash,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Leaves an account without a password, and forgets how an imported one was hashed.
pub(crate) async fn delete_password(connection: &mut PgConnection, user: &UserId) -> Result<(), DbError> {
    sqlx::query!("DELETE FROM auth.imported_passwords WHERE user_id = $1", user.as_str())
        .execute(&mut *connection)
        .await?;
    sqlx::query!("DELETE FROM auth.passwords WHERE user_id = $1", user.as_str()).execute(connection).await?;
    Ok(())
}

/// Gives a new account its password.
pub(crate) async fn insert_password(
    connection: &mut PgConnection,
    user: &UserId,
    hash: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "INSERT INTO auth.passwords (user_id, hash, updated_at) VALUES ($1, $2, $3)",
        user.as_str(),
        hash,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts another hash in the place of `outdated`, if that is still there. The database forgets that it was imported.
pub(super) async fn update_outdated(
    connection: &mut PgConnection,
    user: &UserId,
    outdated: &str,
    hash: &str,
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.passwords SET hash = $3, updated_at = $4 WHERE user_id = $1 AND hash = $2",
        user.as_str(),
        outdated,
        hash,
        now
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The schemes that passwords of imported accounts are hashed by, each once. A step along the index for each, however many
/// accounts there are.
pub(crate) async fn list_imported_schemes(connection: &mut PgConnection) -> Result<Vec<Scheme>, DbError> {
    let schemes = sqlx::query_scalar!(
        r#"WITH RECURSIVE step (scheme) AS (
               SELECT min(scheme) FROM auth.imported_passwords
               UNION ALL
               SELECT (SELECT min(imported.scheme) FROM auth.imported_passwords imported WHERE imported.scheme > step.scheme)
               FROM step WHERE step.scheme IS NOT NULL
           )
           SELECT scheme AS "scheme!" FROM step WHERE scheme IS NOT NULL"#
    )
    .fetch_all(connection)
    .await?;
    read_schemes(&schemes)
}

/// Schemes as the database names them.
pub(crate) fn read_schemes(names: &[String]) -> Result<Vec<Scheme>, DbError> {
    names
        .iter()
        .map(|name| name.parse().map_err(|_| DbError::unreadable("auth.imported_passwords")))
        .collect()
}

/// Gives imported accounts their passwords, which are hashed by schemes other than ours where one is named.
#[expect(
    clippy::as_conversions,
    reason = "how a checked query is told that elements of an array may be null"
)]
pub(crate) async fn insert_imported(
    connection: &mut PgConnection,
    users: &[String],
    hashes: &[String],
    schemes: &[Option<String>],
    now: OffsetDateTime,
) -> Result<(), DbError> {
    sqlx::query!(
        "WITH imported AS (
             SELECT user_id, hash, scheme FROM unnest($1::text[], $2::text[], $3::text[]) AS imported (user_id, hash, scheme)
         ), inserted AS (
             INSERT INTO auth.passwords (user_id, hash, updated_at) SELECT user_id, hash, $4 FROM imported
         )
         INSERT INTO auth.imported_passwords (user_id, scheme) SELECT user_id, scheme FROM imported WHERE scheme IS NOT NULL",
        users,
        hashes,
        schemes as &[Option<String>],
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}
