//! `GET /api/v1/credits/purchase/{id}`: what became of a purchase.

use super::model::{PaymentError, order_id};
use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::{Path, State};
use mana_platform::http::{ApiError, Caller, ProblemBody};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A purchase of a package.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseResponse {
    #[schema(min_length = 1, max_length = 64)]
    pub(crate) id: String,
    #[schema(min_length = 1, max_length = 64)]
    pub(super) package_id: String,
    /// pending, completed, failed or refunded.
    #[schema(max_length = 16)]
    pub(super) status: String,
    /// created, unpaid, failed, expired, paid, `partially_refunded` or refunded.
    #[schema(max_length = 32)]
    pub(super) state: String,
    /// Mana bought.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(super) credits: i64,
    /// The package's price in EUR cents.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(super) price_euro_cents: i64,
    #[schema(min_length = 3, max_length = 3)]
    pub(super) currency: String,
    /// What was to be paid, in the smallest unit of `currency`.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(super) price_cents: i64,
    /// What went back of it.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub(super) refunded_cents: i64,
    /// Whether the payer's bank contests it.
    pub(super) disputed: bool,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
    /// When the mana was given.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub(super) completed_at: Option<OffsetDateTime>,
}

/// A purchase
///
/// Asking for one that is pending has it looked at soon, whether or not Stripe's message has come.
#[utoipa::path(
    get, path = "/api/v1/credits/purchase/{id}", tag = "credits",
    params(("id" = String, Path, description = "The purchase", min_length = 1, max_length = 64)),
    responses(
        (status = 200, description = "The purchase", body = PurchaseResponse),
        (status = 404, description = "No such purchase", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn find_purchase(
    State(credits): State<CreditsState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<PurchaseResponse>, ApiError> {
    let id = order_id(id)?;
    let mut transaction = credits.database.begin_as(&caller.user_id).await?;
    let found = store::find_purchase(&mut transaction, &caller.user_id, &id).await?;
    let found = found.ok_or(PaymentError::NoSuchPurchase)?;
    if found.status == "pending" {
        credits.payments.errands.look_at(&found.id);
    }
    Ok(Json(found))
}
