//! `POST /api/v1/credits/payment-link`: a link to pay for a package, for a chat or a mail.

use super::model::PaymentError;
use super::place::{PurchaseRequest, place};
use crate::CreditsState;
use crate::idempotency;
use axum::Json;
use axum::extract::State;
use http::{HeaderMap, StatusCode};
use mana_platform::http::{ApiError, Caller, ProblemBody, Valid};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// A link to pay.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PaymentLink {
    /// Where to send the person. Null when the request is repeated under its key and the till was found when it was over already.
    #[schema(max_length = 4096, required)]
    url: Option<String>,
    #[schema(min_length = 1, max_length = 64)]
    purchase_id: String,
    /// When it stops to work.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    expires_at: Option<OffsetDateTime>,
    package: SoldPackage,
}

/// What is paid for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SoldPackage {
    #[schema(max_length = 100)]
    name: String,
    /// Mana that it gives.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    credits: i64,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    price_euro_cents: i64,
}

/// A link to pay for a package
#[utoipa::path(
    post, path = "/api/v1/credits/payment-link", tag = "credits",
    request_body = PurchaseRequest,
    responses(
        (status = 201, description = "The link", body = PaymentLink),
        (status = 400, description = "Not such a request, or of an embedded till", body = ProblemBody),
        (status = 404, description = "No such package", body = ProblemBody),
        (status = 409, description = "Too many purchases wait to be paid", body = ProblemBody),
        (status = 422, description = "The key was used for another request", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn payment_link(
    State(credits): State<CreditsState>,
    caller: Caller,
    headers: HeaderMap,
    Valid(mut request): Valid<PurchaseRequest>,
) -> Result<(StatusCode, Json<PaymentLink>), ApiError> {
    if request.is_embedded() {
        return Err(PaymentError::EmbeddedLink.into());
    }
    let key = idempotency::key_of(&headers, request.idempotency_key.take())?;
    let placed = place(&credits.payments, &caller.user_id, &request, key.as_ref()).await?;
    let package = SoldPackage {
        name: placed.package_name,
        credits: placed.credits,
        price_euro_cents: placed.price_euro_cents,
    };
    let link = PaymentLink {
        url: placed.checkout_url,
        purchase_id: placed.id,
        expires_at: placed.expires_at,
        package,
    };
    Ok((StatusCode::CREATED, Json(link)))
}
