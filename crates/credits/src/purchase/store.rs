//! All SQL of `credits.purchases`.

use super::list::PurchaseResponse;
use mana_kernel::UserId;
use mana_platform::DbError;
use sqlx::PgConnection;

/// A user's purchases, newest first; the latest 500.
pub(super) async fn list_purchases(
    connection: &mut PgConnection,
    user: &UserId,
) -> Result<Vec<PurchaseResponse>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseResponse,
        "SELECT id, package_id, status, credits, price_euro_cents, created_at, completed_at
         FROM credits.purchases WHERE user_id = $1 ORDER BY created_at DESC, id DESC LIMIT 500",
        user.as_str(),
    )
    .fetch_all(connection)
    .await?)
}
