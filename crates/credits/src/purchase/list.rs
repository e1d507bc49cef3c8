//! `GET /api/v1/credits/purchases`: what the caller bought, newest first.

use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A purchase of a package.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseResponse {
    pub(crate) id: String,
    pub(super) package_id: String,
    /// pending, completed, failed or refunded.
    pub(super) status: String,
    /// Mana bought.
    pub(super) credits: i64,
    /// Price paid in EUR cents.
    pub(super) price_euro_cents: i64,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    pub(super) completed_at: Option<OffsetDateTime>,
}

/// Purchases
///
/// The latest 500.
#[utoipa::path(
    get, path = "/api/v1/credits/purchases", tag = "credits",
    responses((status = 200, description = "The purchases", body = Vec<PurchaseResponse>)),
    security(("bearer" = [])),
)]
pub(crate) async fn purchases(
    State(credits): State<CreditsState>,
    caller: Caller,
) -> Result<Json<Vec<PurchaseResponse>>, ApiError> {
    let mut transaction = credits.database.begin_as(&caller.user_id).await?;
    Ok(Json(store::list_purchases(&mut transaction, &caller.user_id).await?))
}
