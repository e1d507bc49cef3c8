//! All SQL of `credits.packages` and `credits.package_versions`.

use super::model::{PackageContent, PackageError, PackageId, PackageResponse};
use mana_kernel::{Line, Mana, Paragraph};
use mana_platform::DbError;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Packages in the order to show them: those for sale, or all; the first thousand.
pub(crate) async fn list_packages(
    connection: &mut PgConnection,
    with_inactive: bool,
) -> Result<Vec<PackageResponse>, DbError> {
    Ok(sqlx::query_as!(
        PackageResponse,
        "SELECT id, name, description, credits, bonus_credits, price_euro_cents, prices, stripe_price_id, active, sort_order, metadata,
             version, created_at
         FROM credits.packages WHERE active OR $1 ORDER BY sort_order, id LIMIT 1000",
        with_inactive,
    )
    .fetch_all(connection)
    .await?)
}

/// A package that is for sale.
pub(crate) async fn find_active(
    connection: &mut PgConnection,
    id: &str,
) -> Result<Option<PackageResponse>, DbError> {
    Ok(sqlx::query_as!(
        PackageResponse,
        "SELECT id, name, description, credits, bonus_credits, price_euro_cents, prices, stripe_price_id, active, sort_order, metadata,
             version, created_at
         FROM credits.packages WHERE active AND id = $1",
        id,
    )
    .fetch_optional(connection)
    .await?)
}

/// What a version of a package was called.
pub(crate) async fn find_version_name(
    connection: &mut PgConnection,
    id: &str,
    version: i32,
) -> Result<Option<String>, DbError> {
    Ok(sqlx::query_scalar!(
        "SELECT name FROM credits.package_versions WHERE package_id = $1 AND version = $2",
        id,
        version,
    )
    .fetch_optional(connection)
    .await?)
}

/// Makes the package, or a new version of it if anything differs.
pub(crate) async fn put_package(
    connection: &mut PgConnection,
    id: &PackageId,
    content: &PackageContent,
    by: Option<&str>,
    now: OffsetDateTime,
) -> Result<PackageResponse, PackageError> {
    let bonus = content.bonus_credits.map_or(0, Mana::get);
    if bonus > content.credits.get() {
        return Err(PackageError::BonusBeyondCredits(id.as_str().to_owned()));
    }
    // As texts: what goes as a JSON value is jsonb on its way, which takes less than JSON does.
    let prices = serde_json::to_string(&content.prices)?;
    let metadata = content.metadata.as_ref().map(serde_json::to_string).transpose()?;
    // A place to lock: whoever is at the same new package waits here.
    sqlx::query!(
        "INSERT INTO credits.packages (id, name, credits, price_euro_cents, active, sort_order, created_at, version)
         VALUES ($1, '', 1, 1, false, 0, $2, 1) ON CONFLICT ON CONSTRAINT packages_pkey DO NOTHING",
        id.as_str(),
        now,
    )
    .execute(&mut *connection)
    .await
    .map_err(DbError::from)?;
    let package = sqlx::query_as!(
        PackageResponse,
        "UPDATE credits.packages old SET name = $2, description = $3, credits = $4, bonus_credits = $5, price_euro_cents = $6, prices = $7::text::json,
             stripe_price_id = $8, active = $9, sort_order = $10, metadata = $11::text::json, updated_at = $12,
             version = CASE
                 WHEN NOT EXISTS (SELECT FROM credits.package_versions kept WHERE kept.package_id = $1) THEN 1
                 WHEN (old.name, old.description, old.credits, old.bonus_credits, old.price_euro_cents, old.prices::text, old.stripe_price_id,
                          old.active, old.sort_order, old.metadata::text)
                     IS NOT DISTINCT FROM ($2, $3, $4, $5, $6, $7::text, $8, $9, $10, $11::text) THEN old.version
                 ELSE old.version + 1 END
         WHERE id = $1
         RETURNING id, name, description, credits, bonus_credits, price_euro_cents, prices, stripe_price_id, active, sort_order, metadata,
             version, created_at",
        id.as_str(),
        content.name.as_str(),
        content.description.as_ref().map(Paragraph::as_str),
        content.credits.get(),
        bonus,
        content.price_euro_cents.get(),
        prices,
        content.stripe_price_id.as_ref().map(Line::as_str),
        content.active.unwrap_or(true),
        content.sort_order.unwrap_or(0),
        metadata,
        now,
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(DbError::from)?;
    sqlx::query!(
        "INSERT INTO credits.package_versions
             (package_id, version, name, credits, bonus_credits, price_euro_cents, prices, stripe_price_id, created_at, created_by)
         SELECT id, version, name, credits, bonus_credits, price_euro_cents, prices, stripe_price_id, $2, $3
         FROM credits.packages WHERE id = $1
         ON CONFLICT ON CONSTRAINT package_versions_pkey DO NOTHING",
        id.as_str(),
        now,
        by,
    )
    .execute(connection)
    .await
    .map_err(DbError::from)?;
    Ok(package)
}
