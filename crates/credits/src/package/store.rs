//! All SQL of `credits.packages`.

use super::list::PackageResponse;
use mana_platform::DbError;
use sqlx::PgConnection;

/// What is for sale, in the order to show it.
pub(super) async fn list_active_packages(
    connection: &mut PgConnection,
) -> Result<Vec<PackageResponse>, DbError> {
    Ok(sqlx::query_as!(
        PackageResponse,
        "SELECT id, name, description, credits, price_euro_cents, stripe_price_id, active, sort_order, metadata
         FROM credits.packages WHERE active ORDER BY sort_order, id",
    )
    .fetch_all(connection)
    .await?)
}
