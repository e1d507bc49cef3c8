//! Tills and payments that were made for an order and are not noted with it, because an answer was lost.

use super::model::{Order, OrderOrigin, PaymentError};
use super::{Payments, store};
use crate::stripe::object::{CheckoutSession, Expandable, PaymentIntent};
use crate::stripe::{Stripe, StripeError};
use time::OffsetDateTime;

impl Order {
    /// Whether a till was made for this order as it is. One that asks for something else was refused when it was made.
    pub(super) fn lacks(&self, session: &CheckoutSession) -> bool {
        self.session_id.is_none()
            && self.origin == OrderOrigin::Person
            && session.livemode == self.livemode
            && session.asks_for(self.is_taxed, self.price_cents, &self.currency)
    }

    /// Whether money came in by a payment that this order does not know of. One that charged nothing is of no interest.
    pub(super) fn lacks_payment(&self, payment: &PaymentIntent) -> bool {
        let is_named = payment.metadata.get("order_id") == Some(&self.id)
            && payment.metadata.get("origin").map(String::as_str) == Some(OrderOrigin::AutoTopUp.as_str());
        self.payment_id.is_none()
            && self.session_id.is_none()
            && self.origin == OrderOrigin::AutoTopUp
            && is_named
            && payment.status == "succeeded"
    }
}

impl CheckoutSession {
    /// Whether it asks for this price. Tax is not known before the payer has said from where.
    pub(super) fn asks_for(&self, is_taxed: bool, price_cents: i64, currency: &str) -> bool {
        let asked = if is_taxed { self.amount_subtotal } else { self.amount_total };
        asked == Some(price_cents) && self.currency.as_deref() == Some(currency)
    }
}

/// Notes a till with the order that lacks it, so that its payment can be found.
pub(super) async fn adopt_till(
    payments: &Payments,
    order: &Order,
    session: &CheckoutSession,
) -> Result<(), PaymentError> {
    let Some(customer) = session.customer.as_ref().map(Expandable::id) else { return Ok(()) };
    let columns = store::SessionColumns {
        customer_id: customer,
        session_id: &session.id,
        checkout_url: session.url.as_deref(),
        client_secret: session.client_secret.as_deref(),
        expires_at: session.expires_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
    };
    let mut transaction = payments.books.database.begin().await?;
    store::update_session(&mut transaction, &order.id, &columns, payments.books.clock.now()).await?;
    Ok(transaction.commit().await?)
}

/// Notes a payment with the order that lacks it. Whether it is what was ordered is seen by the look that follows.
pub(super) async fn adopt_payment(
    payments: &Payments,
    order: &Order,
    payment: &PaymentIntent,
) -> Result<(), PaymentError> {
    let Some(customer) = payment.customer.as_ref().map(Expandable::id) else { return Ok(()) };
    tracing::warn!(order = order.id, payment = payment.id, "a payment that was not noted is taken on");
    let mut transaction = payments.books.database.begin().await?;
    store::update_adopted(&mut transaction, &order.id, customer, &payment.id, payments.books.clock.now())
        .await?;
    Ok(transaction.commit().await?)
}

/// The same, of a payment that a delivery tells of.
pub(crate) async fn adopt_told(
    payments: &Payments,
    stripe: &Stripe,
    order: &str,
    payment: &str,
) -> Result<(), PaymentError> {
    let found = store::find_order(&mut *payments.books.database.acquire().await?, order).await?;
    let is_lacking = |order: &Order| {
        order.payment_id.is_none() && order.session_id.is_none() && order.origin == OrderOrigin::AutoTopUp
    };
    let Some(order) = found.filter(is_lacking) else { return Ok(()) };
    match stripe.find_payment(payment).await {
        Ok(payment) if order.lacks_payment(&payment) => adopt_payment(payments, &order, &payment).await,
        Ok(_) | Err(StripeError::NotFound) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
