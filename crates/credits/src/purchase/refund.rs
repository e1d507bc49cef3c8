//! `POST /api/v1/admin/purchases/{id}/refund`: gives money back, and takes its mana along.
//!
//! The mana is taken first, and given again if Stripe refuses: between the two nobody can spend what is paid back. What
//! Stripe did not answer is asked again until it does.

use super::model::{Facts, Order, PaymentError, RefundStatus, order_id};
use super::store::{self, NewRefund};
use super::sync::{apply_locked, sync};
use super::{Payments, model};
use crate::idempotency::{self, IdempotencyKey};
use crate::ledger::store as wallets;
use crate::package::model::Cents;
use crate::stripe::StripeError;
use crate::{Administrator, CreditsState, SalesDeed};
use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use mana_kernel::id::new_uuid;
use mana_kernel::{Line, UserId};
use mana_platform::http::{ApiError, ClientInfo, FreshAdmin, ProblemBody, Valid};
use mana_platform::{DbError, hold_briefly};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

/// Nobody else asks Stripe about a refund for so long.
const LEASE: Duration = Duration::minutes(2);
/// Refunds of a pass.
const BATCH: i64 = 20;

/// Why money goes back, in Stripe's words.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RefundReason {
    Duplicate,
    Fraudulent,
    RequestedByCustomer,
}

impl RefundReason {
    fn as_str(self) -> &'static str {
        match self {
            Self::Duplicate => "duplicate",
            Self::Fraudulent => "fraudulent",
            Self::RequestedByCustomer => "requested_by_customer",
        }
    }
}

/// How much goes back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct PurchaseRefundRequest {
    /// In the smallest unit of the purchase's currency; all that can go back if absent.
    amount_cents: Option<Cents>,
    reason: Option<RefundReason>,
    /// Name of this request, as the `Idempotency-Key` header.
    idempotency_key: Option<IdempotencyKey>,
}

/// Money that goes back.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PurchaseRefund {
    #[schema(min_length = 1, max_length = 64)]
    pub(super) id: String,
    #[schema(min_length = 1, max_length = 64)]
    pub(super) purchase_id: String,
    /// Stripe's name of it, once it has one.
    #[schema(max_length = 255, required)]
    pub(super) stripe_refund_id: Option<String>,
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    pub(super) amount_cents: i64,
    /// wanted, pending, succeeded or failed.
    #[schema(max_length = 16)]
    pub(super) status: String,
    #[schema(max_length = 64, required)]
    pub(super) reason: Option<String>,
    /// The administrator; null for one that was made in Stripe's dashboard.
    #[schema(min_length = 1, max_length = 64, required)]
    pub(super) requested_by: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
}

/// Refunds a purchase
///
/// What the user has spent of it does not go back: `refundableCents` of the purchase says how much can. Its mana is taken
/// from the wallet at once. Needs a proof that is fresh. `wanted` means that Stripe has not answered yet, or refuses the key, and is asked
/// again.
#[utoipa::path(
    post, path = "/api/v1/admin/purchases/{id}/refund", tag = "admin",
    request_body = PurchaseRefundRequest,
    params(
        ("id" = String, Path, description = "The purchase", min_length = 1, max_length = 64),
    ),
    responses(
        (status = 201, description = "The refund", body = PurchaseRefund),
        (status = 403, description = "Not an administrator, or none who has just proven it", body = ProblemBody),
        (status = 404, description = "No such purchase", body = ProblemBody),
        (status = 409, description = "That much can't go back", body = ProblemBody),
        (status = 422, description = "The key was used for another refund", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn refund_purchase(
    State(credits): State<CreditsState>,
    FreshAdmin(admin): FreshAdmin,
    client: ClientInfo,
    Path(id): Path<String>,
    headers: HeaderMap,
    Valid(mut request): Valid<PurchaseRefundRequest>,
) -> Result<(StatusCode, Json<PurchaseRefund>), ApiError> {
    let id = order_id(id)?;
    let key = idempotency::key_of(&headers, request.idempotency_key.take())?;
    let payments = &credits.payments;
    let reason = request.reason.map(|reason| reason.as_str().to_owned());
    find_payment(payments, &id).await?;
    let by = Administrator { caller: Some(admin), client, reason };
    let (wanted, is_new) = want(payments, &id, &request, key.as_ref(), &by).await?;
    if wanted.status == RefundStatus::Wanted.as_str() {
        let sent = if is_new { send(payments, &wanted).await } else { ask_again(payments, &wanted).await };
        sent.or_else(until_later)?;
    }
    let refunds = store::list_refunds(&mut *credits.database.acquire().await?, &id).await?;
    let refund = refunds.into_iter().find(|refund| refund.id == wanted.id);
    let refund = refund.ok_or(PaymentError::NoSuchPurchase)?;
    if refund.status == RefundStatus::Failed.as_str() {
        return Err(PaymentError::NotRefundable.into());
    }
    Ok((StatusCode::CREATED, Json(refund)))
}

/// The payment of an order. If none is noted, as of some orders of the older service, Stripe is asked for the one of its till.
async fn find_payment(payments: &Payments, order: &str) -> Result<Option<String>, PaymentError> {
    let database = &payments.books.database;
    let noted = store::find_order(&mut *database.acquire().await?, order).await?;
    let noted = noted.ok_or(PaymentError::NoSuchPurchase)?.payment_id;
    if noted.is_some() {
        return Ok(noted);
    }
    match sync(payments, order).await {
        Ok(_) => {}
        Err(PaymentError::Stripe(StripeError::NotFound)) => return Ok(None),
        Err(error) => return Err(error),
    }
    let found = store::find_order(&mut *database.acquire().await?, order).await?;
    Ok(found.and_then(|order| order.payment_id))
}

/// What of an order's grant is left. Locks the wallet.
pub(super) async fn remaining(
    payments: &Payments,
    connection: &mut PgConnection,
    order: &Order,
) -> Result<i64, DbError> {
    let users = [order.user_id.clone()];
    hold_briefly(connection).await?;
    let loaded = wallets::lock_wallets(connection, &users, &payments.books.policy.daily_zone).await?;
    let wallet = loaded.wallets.get(&order.user_id);
    let grants = wallet.into_iter().flat_map(|wallet| &wallet.grants);
    let mut own = grants.filter(|grant| Some(grant.sequence) == order.grant_sequence);
    Ok(own.next().map_or(0, |grant| grant.remaining.get()))
}

/// Writes the refund down and takes its mana. Says whether it is a new one.
async fn want(
    payments: &Payments,
    order: &str,
    request: &PurchaseRefundRequest,
    key: Option<&IdempotencyKey>,
    by: &Administrator,
) -> Result<(PurchaseRefund, bool), PaymentError> {
    payments.stripe()?;
    let books = &payments.books;
    let now = books.clock.now();
    let mut transaction = books.database.begin().await?;
    books.admin_log.hold_office(&mut transaction, by).await.map_err(PaymentError::Port)?;
    let order = store::lock_order(&mut transaction, order).await?.ok_or(PaymentError::NoSuchPurchase)?;
    let id = match key {
        Some(key) => {
            let digest =
                mana_kernel::secret::sha256(format!("{}\n{}", order.id, Line::as_str(key)).as_bytes());
            crate::ledger::record::hex::write(&digest[..])
        }
        None => new_uuid(&*books.clock, &*books.rng).to_string(),
    };
    let known = store::list_refunds(&mut transaction, &order.id).await?;
    if let Some(known) = known.into_iter().find(|refund| refund.id == id) {
        let is_same = request.amount_cents.is_none_or(|amount| amount.get() == known.amount_cents);
        return if is_same { Ok((known, false)) } else { Err(PaymentError::KeyReused) };
    }
    if order.payment_id.is_none() {
        return Err(PaymentError::NotRefundable);
    }
    let facts = store::find_facts(&mut transaction, &order).await?;
    let left = remaining(payments, &mut transaction, &order).await?;
    let refundable = if facts.is_disputed() { 0 } else { order.refundable_cents(&facts, left) };
    let amount_cents = request.amount_cents.map_or(refundable, Cents::get);
    if amount_cents > refundable || amount_cents == 0 {
        return Err(PaymentError::NotRefundable);
    }
    let refund = NewRefund {
        id: &id,
        amount_cents,
        reason: request.reason.map(RefundReason::as_str),
        by: by.caller.as_ref().map(|caller| caller.user_id.as_str()),
        next_attempt_at: now.saturating_add(LEASE),
        now,
    };
    store::insert_refund(&mut transaction, &order, &refund).await?;
    let (order_id, user) = (order.id.clone(), order.user_id.clone());
    apply_locked(payments, &mut transaction, order, None).await?;
    let user = UserId::try_from(user).map_err(|_| DbError::unreadable("credits.purchases"))?;
    let deed = SalesDeed::PurchaseRefunded { user: &user, purchase: &order_id, amount_cents };
    books.admin_log.record_sale(&mut transaction, by, deed).await.map_err(PaymentError::Port)?;
    let made = store::list_refunds(&mut transaction, &order_id).await?;
    transaction.commit().await?;
    let made = made.into_iter().find(|refund| refund.id == id).ok_or(PaymentError::NoSuchPurchase)?;
    Ok((made, true))
}

/// Has Stripe do it. What it does not answer, or refuses because of the key, stays wanted.
async fn send(payments: &Payments, refund: &PurchaseRefund) -> Result<(), PaymentError> {
    let stripe = payments.stripe()?;
    let Some(payment) = find_payment(payments, &refund.purchase_id).await? else {
        tracing::warn!(refund = refund.id, order = refund.purchase_id, "there is no payment to refund");
        return give_up(payments, refund).await;
    };
    let mut form = vec![
        ("payment_intent".to_owned(), payment),
        ("amount".to_owned(), refund.amount_cents.to_string()),
        ("metadata[refund_id]".to_owned(), refund.id.clone()),
    ];
    form.extend(refund.reason.clone().map(|reason| ("reason".to_owned(), reason)));
    match stripe.create_refund(&form, &format!("refund-{}", refund.id)).await {
        Ok(_) => sync(payments, &refund.purchase_id).await.map(drop),
        Err(error) if error.is_about_the_key() => Err(error.into()),
        Err(error @ (StripeError::Refused { .. } | StripeError::NotFound)) => {
            tracing::warn!(refund = refund.id, order = refund.purchase_id, %error, "a refund is refused");
            give_up(payments, refund).await
        }
        Err(error @ (StripeError::Unavailable(_) | StripeError::Unreadable(_))) => Err(error.into()),
    }
}

/// What can't be known now, or an operator can help, is asked again by the next pass.
fn until_later(error: PaymentError) -> Result<(), PaymentError> {
    let passes =
        matches!(error, PaymentError::Stripe(StripeError::Unavailable(_) | StripeError::Unreadable(_)));
    let is_about_the_key = matches!(&error, PaymentError::Stripe(error) if error.is_about_the_key());
    if passes || is_about_the_key { Ok(()) } else { Err(error) }
}

/// The refund is none: its mana goes back.
async fn give_up(payments: &Payments, refund: &PurchaseRefund) -> Result<(), PaymentError> {
    let mut transaction = payments.books.database.begin().await?;
    let order = store::lock_order(&mut transaction, &refund.purchase_id).await?;
    let order = order.ok_or(PaymentError::NoSuchPurchase)?;
    let failed = (refund.id.clone(), (RefundStatus::Failed, refund.amount_cents));
    let facts = store::find_facts(&mut transaction, &order).await?;
    let facts = facts.merge(&Facts { refunds: BTreeMap::from([failed]), ..order.facts() });
    store::write_facts(&mut transaction, &order, &facts, &BTreeMap::new(), payments.books.clock.now())
        .await?;
    apply_locked(payments, &mut transaction, order, None).await?;
    Ok(transaction.commit().await?)
}

/// Asks Stripe again for refunds that it has not answered: whether it did them, and if not, to do them.
///
/// # Errors
/// When the database fails.
pub async fn send_wanted_refunds(payments: &Payments) -> Result<(), model::PaymentError> {
    if payments.stripe.is_none() {
        return Ok(());
    }
    let now = payments.books.clock.now();
    let mut transaction = payments.books.database.begin().await?;
    let claimed =
        store::update_claimed_refunds(&mut transaction, now, now.saturating_add(LEASE), BATCH).await?;
    transaction.commit().await?;
    for refund in claimed {
        if let Err(error) = ask_again(payments, &refund).await {
            tracing::warn!(refund = refund.id, order = refund.purchase_id, %error, "a refund waits");
        }
    }
    Ok(())
}

/// Has Stripe do what it has not done yet.
async fn ask_again(payments: &Payments, refund: &PurchaseRefund) -> Result<(), PaymentError> {
    // Stripe forgets idempotency keys after a day, and not what was done under them.
    if find_payment(payments, &refund.purchase_id).await?.is_some() {
        sync(payments, &refund.purchase_id).await?;
    }
    let known =
        store::list_refunds(&mut *payments.books.database.acquire().await?, &refund.purchase_id).await?;
    let still_wanted =
        |known: &PurchaseRefund| known.id == refund.id && known.status == RefundStatus::Wanted.as_str();
    if known.iter().any(still_wanted) {
        send(payments, refund).await?;
    }
    Ok(())
}
