//! `GET /api/v1/admin/purchases/{id}`: a purchase with all that is known of its payment.

use super::model::{PaymentError, order_id};
use super::refund::{PurchaseRefund, remaining};
use super::store;
use crate::CreditsState;
use axum::Json;
use axum::extract::{Path, State};
use mana_platform::http::{Admin, ApiError, ProblemBody};
use serde::Serialize;
use utoipa::ToSchema;

/// A purchase as an administrator sees it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseDetails {
    #[schema(min_length = 1, max_length = 64)]
    id: String,
    #[schema(min_length = 1, max_length = 64)]
    user_id: String,
    #[schema(min_length = 1, max_length = 64)]
    package_id: String,
    /// created, unpaid, failed, expired, paid, `partially_refunded` or refunded.
    #[schema(max_length = 32)]
    state: String,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    credits: i64,
    #[schema(min_length = 3, max_length = 3)]
    currency: String,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    price_cents: i64,
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    captured_cents: i64,
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    refunded_cents: i64,
    /// What disputes took for good.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    lost_cents: i64,
    disputed: bool,
    fraud_warned: bool,
    /// What can go back without leaving a debt.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    refundable_cents: i64,
    /// Why it is paid and not credited: `order_mismatch`, `amount_mismatch`, `currency_mismatch`, `livemode_mismatch`,
    /// `customer_mismatch`, `wallet_closed` or `wallet_full`.
    #[schema(max_length = 64, required)]
    problem: Option<String>,
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    granted_mana: i64,
    /// Taken back.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    taken_mana: i64,
    /// Owed, because it was spent.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    owed_mana: i64,
    /// Stripe's names of it.
    #[schema(max_length = 255, required)]
    session_id: Option<String>,
    #[schema(max_length = 255, required)]
    payment_id: Option<String>,
    livemode: bool,
    #[schema(max_items = 1000)]
    refunds: Vec<PurchaseRefund>,
}

/// A purchase with its payment
#[utoipa::path(
    get, path = "/api/v1/admin/purchases/{id}", tag = "admin",
    params(("id" = String, Path, description = "The purchase", min_length = 1, max_length = 64)),
    responses(
        (status = 200, description = "The purchase", body = PurchaseDetails),
        (status = 403, description = "Not an administrator", body = ProblemBody),
        (status = 404, description = "No such purchase", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn show_purchase(
    State(credits): State<CreditsState>,
    _: Admin,
    Path(id): Path<String>,
) -> Result<Json<PurchaseDetails>, ApiError> {
    let id = order_id(id)?;
    let mut transaction = credits.database.begin().await?;
    let order = store::find_order(&mut transaction, &id).await?.ok_or(PaymentError::NoSuchPurchase)?;
    let facts = store::find_facts(&mut transaction, &order).await?;
    let left = remaining(&credits.payments, &mut transaction, &order).await?;
    let refundable = if facts.is_disputed() { 0 } else { order.refundable_cents(&facts, left) };
    let refunds = store::list_refunds(&mut transaction, &id).await?;
    Ok(Json(PurchaseDetails {
        state: facts.state(order.granted_mana > 0).to_owned(),
        captured_cents: facts.captured_cents,
        refunded_cents: facts.refunded_cents(),
        lost_cents: facts.lost_cents(),
        disputed: facts.is_disputed(),
        fraud_warned: facts.fraud_warned,
        refundable_cents: refundable,
        id: order.id,
        user_id: order.user_id,
        package_id: order.package_id,
        credits: order.credits,
        currency: order.currency,
        price_cents: order.price_cents,
        problem: order.problem,
        granted_mana: order.granted_mana,
        taken_mana: order.taken_mana,
        owed_mana: order.owed_mana,
        session_id: order.session_id,
        payment_id: order.payment_id,
        livemode: order.livemode,
        refunds,
    }))
}
