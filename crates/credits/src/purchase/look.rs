//! The pass that looks at orders because somebody asked for them.

use super::model::PaymentError;
use super::sync::sync;
use super::{Payments, store};
use crate::stripe::StripeError;
use time::Duration;

/// How often an order is looked at because somebody asks.
const BETWEEN_LOOKS: Duration = Duration::seconds(3);
/// Orders of a pass.
const ORDERS: usize = 20;

/// Looks at the orders that have waited longest. Names of orders are anybody's word, so only those cost a call that wait to be paid and were
/// not looked at a moment ago.
///
/// # Errors
/// When the database fails.
pub async fn look_at_asked(payments: &Payments) -> Result<(), PaymentError> {
    let asked = payments.errands.take(ORDERS);
    if asked.is_empty() || payments.stripe.is_none() {
        return Ok(());
    }
    let long_ago = payments.books.clock.now().saturating_sub(BETWEEN_LOOKS);
    let mut connection = payments.books.database.acquire().await?;
    let pending = store::list_pending(&mut connection, &asked, long_ago).await?;
    drop(connection);
    for order in pending {
        match sync(payments, &order).await {
            Ok(_) | Err(PaymentError::Stripe(StripeError::NotFound)) => {}
            Err(error) => tracing::warn!(order, %error, "a purchase could not be looked at"),
        }
    }
    Ok(())
}
