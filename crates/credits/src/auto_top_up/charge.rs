//! Charges the saved card for an open order, and ends what is not to be charged any more.
//!
//! An order has one payment at Stripe, which is made without charging anything, noted, and then confirmed. A payment succeeds once
//! whatever is asked of it, so that a card is charged once whatever answer is lost, whoever dies, and however long the key of a call is
//! remembered.

use super::model::{AutoTopUp, PauseReason, pause_after};
use super::open::{count, find_objection, pause};
use super::{Payers, store};
use crate::idempotency::IdempotencyKey;
use crate::purchase::model::Order;
use crate::purchase::place::till_for;
use crate::purchase::store as purchases;
use crate::purchase::sync::sync;
use crate::purchase::{PaymentError, Payments};
use crate::stripe::{Stripe, StripeError};
use mana_platform::DbError;
use std::ops::ControlFlow;
use time::Duration;

/// How often a payment is looked at whose money is on its way, if no delivery comes.
const BETWEEN_LOOKS: Duration = Duration::hours(1);

/// What became of a try.
enum Tried {
    /// Stripe took it; a look says what it came to.
    Taken,
    /// The card was declined.
    Declined(PauseReason),
}

/// Does the next thing for an open order.
pub(super) async fn charge(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    order: &str,
) -> Result<(), PaymentError> {
    // What was charged by a server that died, or by a call whose answer was lost, is there already.
    if let ControlFlow::Break(()) = settled(payments, payers, top_up, order).await? {
        return Ok(());
    }
    let books = &payments.books;
    let mut transaction = books.database.begin().await?;
    let objection = find_objection(payments, &mut transaction, payers, top_up).await?.err();
    drop(transaction);
    if let Some(reason) = objection {
        return give_up(payments, stripe, payers, top_up, reason).await;
    }
    let found = purchases::find_order(&mut *books.database.acquire().await?, order).await?;
    let found = found.ok_or(PaymentError::NoSuchPurchase)?;
    match try_once(payments, stripe, top_up, &found).await? {
        Tried::Taken => match settled(payments, payers, top_up, order).await? {
            ControlFlow::Break(()) => Ok(()),
            ControlFlow::Continue(()) => look_again(payments, top_up).await,
        },
        Tried::Declined(reason) => declined(payments, stripe, payers, top_up, order, reason).await,
    }
}

/// Looks at the order, and lets go of it if it has come to its end.
async fn settled(
    payments: &Payments,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    order: &str,
) -> Result<ControlFlow<()>, PaymentError> {
    let books = &payments.books;
    look(payments, order).await?;
    let mut connection = books.database.acquire().await?;
    let found = purchases::find_order(&mut connection, order).await?.ok_or(PaymentError::NoSuchPurchase)?;
    let facts = purchases::find_facts(&mut connection, &found).await?;
    drop(connection);
    let now = books.clock.now();
    match facts.state(found.granted_mana > 0) {
        "paid" => {
            let mut transaction = books.database.begin().await?;
            let is_first = store::update_wound_up(&mut transaction, top_up, now).await?;
            transaction.commit().await.map_err(DbError::from)?;
            if is_first {
                count("credited");
            }
            Ok(ControlFlow::Break(()))
        }
        "failed" | "expired" | "refunded" | "partially_refunded" => {
            let reason = if found.captured_cents > 0 { PauseReason::Refunded } else { PauseReason::Declined };
            pause_with(payments, payers, top_up, reason, None).await?;
            Ok(ControlFlow::Break(()))
        }
        // Paid, and a person has to see why it is not credited.
        _ if found.problem.is_some() => {
            pause_with(payments, payers, top_up, PauseReason::Uncredited, None).await?;
            Ok(ControlFlow::Break(()))
        }
        _ => Ok(ControlFlow::Continue(())),
    }
}

/// Looks at the order's payment. One that Stripe does not know has failed.
async fn look(payments: &Payments, order: &str) -> Result<(), PaymentError> {
    match sync(payments, order).await {
        Err(PaymentError::Stripe(StripeError::NotFound)) => {
            let books = &payments.books;
            let mut transaction = books.database.begin().await?;
            let found = purchases::find_order(&mut transaction, order).await?;
            let payment = found.and_then(|order| order.payment_id);
            purchases::update_failed(&mut transaction, order, payment.as_deref(), books.clock.now()).await?;
            Ok(transaction.commit().await.map_err(DbError::from)?)
        }
        looked => looked.map(drop),
    }
}

/// Has the payment made if there is none, and charged.
async fn try_once(
    payments: &Payments,
    stripe: &Stripe,
    top_up: &AutoTopUp,
    order: &Order,
) -> Result<Tried, PaymentError> {
    let Some(card) = &top_up.payment_method_id else {
        return Ok(Tried::Declined(PauseReason::PaymentMethodGone));
    };
    let payment = match &order.payment_id {
        Some(payment) => payment.clone(),
        None => match make_payment(payments, stripe, top_up, order).await {
            Ok(payment) => payment,
            Err(PaymentError::Stripe(error)) if error.misses("customer") => {
                return Ok(Tried::Declined(PauseReason::PaymentMethodGone));
            }
            Err(error) => return Err(error),
        },
    };
    let mut connection = payments.books.database.acquire().await?;
    let attempt = purchases::find_attempt(&mut connection, &order.id).await?;
    drop(connection);
    let form =
        vec![("payment_method".to_owned(), card.clone()), ("off_session".to_owned(), "true".to_owned())];
    let key = format!("top-up-{}-{attempt}", order.id);
    match stripe.confirm_payment(&payment, &form, &key).await {
        Ok(payment) if payment.status == "requires_action" => {
            Ok(Tried::Declined(PauseReason::AuthenticationRequired))
        }
        Ok(_) => Ok(Tried::Taken),
        Err(error) if error.misses("payment_method") => Ok(Tried::Declined(PauseReason::PaymentMethodGone)),
        Err(StripeError::Refused { code, .. }) if code == "payment_intent_unexpected_state" => {
            Ok(Tried::Taken)
        }
        Err(StripeError::Refused { status, code, parameter }) => {
            tracing::warn!(order = order.id, status, code, parameter, "a top-up is declined");
            count("declined");
            Ok(Tried::Declined(match code.as_str() {
                "authentication_required" => PauseReason::AuthenticationRequired,
                _ => PauseReason::Declined,
            }))
        }
        Err(error) => Err(error.into()),
    }
}

/// A payment that charges nothing yet. One whose note is lost is found again by its key, and is nothing if it is not.
async fn make_payment(
    payments: &Payments,
    stripe: &Stripe,
    top_up: &AutoTopUp,
    order: &Order,
) -> Result<String, PaymentError> {
    let form = [
        ("amount", order.total_cents().to_string()),
        ("currency", order.currency.clone()),
        ("customer", top_up.customer_id.clone()),
        ("payment_method_types[0]", "card".to_owned()),
        ("metadata[order_id]", order.id.clone()),
        ("metadata[origin]", order.origin.as_str().to_owned()),
    ];
    let form = form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let made = stripe.create_payment(&form, &format!("top-up-{}", order.id)).await?;
    let books = &payments.books;
    let mut transaction = books.database.begin().await?;
    let noted = purchases::update_payment(
        &mut transaction,
        &order.id,
        &top_up.customer_id,
        &made.id,
        books.clock.now(),
    );
    let noted = noted.await?;
    transaction.commit().await.map_err(DbError::from)?;
    // If somebody else was faster, theirs is the one.
    Ok(noted.unwrap_or(made.id))
}

async fn look_again(payments: &Payments, top_up: &AutoTopUp) -> Result<(), PaymentError> {
    let books = &payments.books;
    let mut transaction = books.database.begin().await?;
    let at = books.clock.now().saturating_add(BETWEEN_LOOKS);
    store::update_next_look(&mut transaction, top_up, at).await?;
    Ok(transaction.commit().await.map_err(DbError::from)?)
}

/// Waits before the next try, or gives up.
async fn declined(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    order: &str,
    reason: PauseReason,
) -> Result<(), PaymentError> {
    let books = &payments.books;
    let now = books.clock.now();
    let pause = pause_after(top_up.failures.saturating_add(1)).filter(|_| reason == PauseReason::Declined);
    let Some(pause) = pause else {
        return give_up(payments, stripe, payers, top_up, reason).await;
    };
    let mut transaction = books.database.begin().await?;
    let known = store::lock_auto_top_up(&mut transaction, &top_up.user, stripe.is_live()).await?;
    let is_same =
        |known: AutoTopUp| known.order_id.as_deref() == Some(order) && known.failures == top_up.failures;
    if known.is_some_and(is_same) {
        store::update_failures(&mut transaction, &top_up.user, now.saturating_add(pause), now).await?;
        // Under the same key Stripe would give the same refusal again.
        purchases::update_next_attempt(&mut transaction, order).await?;
    }
    Ok(transaction.commit().await.map_err(DbError::from)?)
}

/// Ends the order and pauses, with a till for its owner where paying in person helps.
async fn give_up(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    reason: PauseReason,
) -> Result<(), PaymentError> {
    cancel(payments, stripe, top_up).await?;
    let key = top_up.order_id.as_ref().map(|order| format!("auto-top-up-{order}"));
    let key = key.and_then(|key| IdempotencyKey::try_from(key).ok()).filter(|_| reason.is_about_the_card());
    let till = match key {
        Some(key) => {
            let placed = till_for(payments, &top_up.user, &top_up.package_id, &top_up.currency, &key).await;
            placed.ok().and_then(|placed| placed.checkout_url)
        }
        None => None,
    };
    pause_with(payments, payers, top_up, reason, till.as_deref()).await
}

/// Pauses, unless things have changed meanwhile. What is left of the order is wound up by the next pass: until then no other is opened.
async fn pause_with(
    payments: &Payments,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    reason: PauseReason,
    till: Option<&str>,
) -> Result<(), PaymentError> {
    let books = &payments.books;
    let mut transaction = books.database.begin().await?;
    let live = payments.stripe()?.is_live();
    let known = store::lock_auto_top_up(&mut transaction, &top_up.user, live).await?;
    let is_same = |known: &AutoTopUp| known.status == top_up.status && known.order_id == top_up.order_id;
    if known.as_ref().is_some_and(is_same) {
        pause(&mut transaction, payers, top_up, (reason, till), books.clock.now()).await?;
    }
    Ok(transaction.commit().await.map_err(DbError::from)?)
}

/// Ends the open order, so that it is never charged. One that was charged is what it is.
///
/// # Errors
/// [`PaymentError::TopUpUnderWay`] while it can't be known what becomes of it.
pub(super) async fn cancel(
    payments: &Payments,
    stripe: &Stripe,
    top_up: &AutoTopUp,
) -> Result<(), PaymentError> {
    let books = &payments.books;
    let Some(order) = &top_up.order_id else { return Ok(()) };
    if !is_open(payments, order).await? {
        return Ok(());
    }
    let found = purchases::find_order(&mut *books.database.acquire().await?, order).await?;
    match found.and_then(|order| order.payment_id) {
        Some(payment) => {
            match stripe.cancel_payment(&payment, &format!("top-up-{order}-cancel")).await {
                // Refused because it has come to its end, or is on its way to it: the look says which.
                Ok(_) | Err(StripeError::Refused { .. } | StripeError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
            look(payments, order).await?;
        }
        None => {
            let mut transaction = books.database.begin().await?;
            purchases::update_failed(&mut transaction, order, None, books.clock.now()).await?;
            transaction.commit().await.map_err(DbError::from)?;
        }
    }
    if is_open(payments, order).await? { Err(PaymentError::TopUpUnderWay) } else { Ok(()) }
}

/// Whether an order may yet be charged.
async fn is_open(payments: &Payments, order: &str) -> Result<bool, PaymentError> {
    let mut connection = payments.books.database.acquire().await?;
    let found = purchases::find_order(&mut connection, order).await?.ok_or(PaymentError::NoSuchPurchase)?;
    let facts = purchases::find_facts(&mut connection, &found).await?;
    let is_waiting = matches!(facts.state(found.granted_mana > 0), "created" | "unpaid");
    Ok(is_waiting && found.problem.is_none())
}
