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

/// A page of a user's purchases, in the order of their ids.
pub(crate) async fn list_after(
    connection: &mut PgConnection,
    user: &UserId,
    after: &str,
    limit: i64,
) -> Result<Vec<PurchaseResponse>, DbError> {
    Ok(sqlx::query_as!(
        PurchaseResponse,
        "SELECT id, package_id, status, credits, price_euro_cents, created_at, completed_at
         FROM credits.purchases WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        user.as_str(),
        after,
        limit,
    )
    .fetch_all(connection)
    .await?)
}
