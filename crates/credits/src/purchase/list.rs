//! `GET /api/v1/credits/purchases`: what the caller bought, newest first.

use super::find::PurchaseResponse;
use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use mana_platform::http::{ApiError, Caller};

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
