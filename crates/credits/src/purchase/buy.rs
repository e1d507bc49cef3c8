//! `POST /api/v1/credits/purchase`: buys a package.

use super::place::{PurchaseRequest, place};
use crate::CreditsState;
use crate::idempotency;
use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mana_platform::http::{ApiError, Caller, ProblemBody, Valid};
use serde::Serialize;
use utoipa::ToSchema;

/// A purchase that waits to be paid.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchasePlaced {
    #[schema(min_length = 1, max_length = 64)]
    purchase_id: String,
    /// Where to send the browser; null if the till is embedded.
    #[schema(max_length = 4096, required)]
    checkout_url: Option<String>,
    /// For an embedded till; null if it is hosted.
    #[schema(max_length = 1024, required)]
    client_secret: Option<String>,
    /// For an embedded till, if the operator has set it.
    #[schema(max_length = 255, required)]
    publishable_key: Option<String>,
    /// What is to be paid, in the smallest unit of `currency`.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    amount: i64,
    #[schema(min_length = 3, max_length = 3)]
    currency: String,
    /// Mana that it gives.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    credits: i64,
}

/// Buys a package
///
/// Send the browser to `checkoutUrl`. The mana is there soon after the payment: ask `GET /credits/purchase/{id}` when the
/// browser is back.
#[utoipa::path(
    post, path = "/api/v1/credits/purchase", tag = "credits",
    request_body = PurchaseRequest,
    responses(
        (status = 201, description = "To be paid", body = PurchasePlaced),
        (status = 404, description = "No such package", body = ProblemBody),
        (status = 409, description = "Too many purchases wait to be paid", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn purchase(
    State(credits): State<CreditsState>,
    caller: Caller,
    headers: HeaderMap,
    Valid(mut request): Valid<PurchaseRequest>,
) -> Result<(StatusCode, Json<PurchasePlaced>), ApiError> {
    let key = idempotency::key_of(&headers, request.idempotency_key.take())?;
    let placed = place(&credits.payments, &caller.user_id, &request, key.as_ref()).await?;
    let is_embedded = placed.client_secret.is_some();
    let answer = PurchasePlaced {
        purchase_id: placed.id,
        checkout_url: placed.checkout_url,
        client_secret: placed.client_secret,
        publishable_key: credits.payments.publishable_key.clone().filter(|_| is_embedded),
        amount: placed.price_cents,
        currency: placed.currency,
        credits: placed.credits,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}
