//! All SQL of `auth.service_keys`.

use super::hold::Held;
use super::model::{ServiceKeyDetails, ServiceKeyHash};
use mana_kernel::Line;
use mana_platform::DbError;
use mana_platform::http::{KeyApp, Scope, Scopes, ServiceKey};
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Adds a key.
pub(super) async fn insert(
    connection: &mut PgConnection,
    key: &ServiceKeyDetails,
    hash: ServiceKeyHash,
) -> Result<(), DbError> {
    let scopes: Vec<_> = key.scopes.iter().map(ToString::to_string).collect();
    sqlx::query!(
        "INSERT INTO auth.service_keys (id, key_hash, name, app_id, scopes, limit_per_minute, created_at, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        key.id,
        hash.as_bytes(),
        key.name,
        key.app_id,
        &scopes,
        key.limit_per_minute,
        key.created_at,
        key.created_by,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A key that is accepted, and when it was last used.
pub(super) async fn find_good(
    connection: &mut PgConnection,
    hash: ServiceKeyHash,
) -> Result<Option<(ServiceKey, Option<OffsetDateTime>)>, DbError> {
    let row = sqlx::query!(
        "SELECT id, app_id, scopes, limit_per_minute, last_used_at FROM auth.service_keys
         WHERE key_hash = $1 AND revoked_at IS NULL",
        hash.as_bytes(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let unreadable = || DbError::unreadable("auth.service_keys");
    let app = match row.app_id {
        Some(app) => KeyApp::Only(Line::try_from(app).map_err(|_| unreadable())?),
        None => KeyApp::Any { otherwise: None },
    };
    let limit_per_minute = row.limit_per_minute.map(u32::try_from).transpose().map_err(|_| unreadable())?;
    let key = ServiceKey { id: row.id, app, scopes: scopes_of(&row.scopes), limit_per_minute };
    Ok(Some((key, row.last_used_at)))
}

/// The keys, the newest first; of more than a thousand those that are accepted, and the newest of the others.
pub(super) async fn list_all(connection: &mut PgConnection) -> Result<Vec<ServiceKeyDetails>, DbError> {
    let rows = sqlx::query!(
        "SELECT id, name, app_id, scopes, limit_per_minute, created_at, created_by, last_used_at, revoked_at
         FROM auth.service_keys ORDER BY revoked_at IS NULL DESC, created_at DESC, id DESC LIMIT 1000",
    )
    .fetch_all(connection)
    .await?;
    let keys = rows.into_iter().map(|row| ServiceKeyDetails {
        id: row.id,
        name: row.name,
        app_id: row.app_id,
        scopes: scopes_of(&row.scopes),
        limit_per_minute: row.limit_per_minute,
        created_at: row.created_at,
        created_by: row.created_by,
        last_used_at: row.last_used_at,
        revoked_at: row.revoked_at,
    });
    let mut keys: Vec<_> = keys.collect();
    keys.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
    Ok(keys)
}

/// Ends a key. False if there is none that is accepted.
pub(super) async fn update_revoked(
    connection: &mut PgConnection,
    id: Uuid,
    now: OffsetDateTime,
) -> Result<bool, DbError> {
    let done = sqlx::query!(
        "UPDATE auth.service_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL",
        id.to_string(),
        now,
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Those of the keys that are accepted, and those of the users that are disabled; both are locked until the transaction ends. A key is
/// locked so weakly that its use can be noted meanwhile.
///
/// In the order of what was asked, which no index gives, so that PostgreSQL keeps no plan that walks all users.
pub(super) async fn hold(
    connection: &mut PgConnection,
    keys: &[String],
    users: &[String],
) -> Result<Held, DbError> {
    let rows = sqlx::query!(
        r#"WITH held_users AS (
               SELECT users.id, disabled_at IS NOT NULL AS is_disabled FROM unnest($2::text[]) AS asked (id) JOIN auth.users ON users.id = asked.id
               WHERE users.id = ANY($2) ORDER BY asked.id FOR SHARE OF users
           ), held_keys AS (
               SELECT service_keys.id, app_id IS NOT NULL AS is_bound FROM unnest($1::text[]) AS asked (id) JOIN auth.service_keys ON service_keys.id = asked.id
               WHERE service_keys.id = ANY($1) AND revoked_at IS NULL ORDER BY asked.id FOR KEY SHARE OF service_keys
           )
           SELECT id AS "id!", false AS "is_key!", false AS "is_bound!" FROM held_users WHERE is_disabled
           UNION ALL SELECT id, true, is_bound FROM held_keys"#,
        keys,
        users,
    )
    .fetch_all(connection)
    .await?;
    let mut held = Held::default();
    for row in rows {
        if row.is_bound {
            held.bound_keys.push(row.id.clone());
        }
        if row.is_key { held.keys.push(row.id) } else { held.disabled.push(row.id) }
    }
    Ok(held)
}

/// Waits until nothing is carried out any more for a key that was revoked.
pub(super) async fn outwait_holders(connection: &mut PgConnection, id: Uuid) -> Result<(), DbError> {
    sqlx::query!("SELECT id FROM auth.service_keys WHERE id = $1 FOR UPDATE", id.to_string())
        .fetch_optional(connection)
        .await?;
    Ok(())
}

/// Writes down when keys were used, unless that is known to the minute: each replica writes what it saw.
pub(super) async fn update_used(
    connection: &mut PgConnection,
    ids: &[String],
    at: &[OffsetDateTime],
) -> Result<(), DbError> {
    sqlx::query!(
        "UPDATE auth.service_keys SET last_used_at = used.at FROM unnest($1::text[], $2::timestamptz[]) AS used (id, at)
         WHERE service_keys.id = used.id AND (last_used_at IS NULL OR last_used_at <= used.at - interval '1 minute')",
        ids,
        at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn scopes_of(texts: &[String]) -> Scopes {
    texts.iter().filter_map(|text| Scope::from_database(text)).collect()
}
