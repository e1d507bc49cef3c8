//! Charges the saved card for an open order, and ends what is not to be charged any more.
//!
//! An order has one payment at Stripe, which is made without charging anything, noted, and then confirmed. A payment succeeds once
//! whatever is asked of it, so that a card is charged once whatever answer is lost, whoever dies, and however long the key of a call is
//! remembered. Confirmed is only what is noted with an open order, and what the owner wanted when that was last looked at, just before.

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
use std::ops::ControlFlow;
use time::Duration;

/// How often a payment is looked at whose money is on its way, if no delivery comes.
const BETWEEN_LOOKS: Duration = Duration::hours(1);
/// The status of a refusal that is the card's, and not Stripe's.
const CARD_REFUSED: u16 = 402;

/// What became of a try.
enum Tried {
    /// Stripe took it; a look says what it came to.
    Taken,
    /// It was refused.
    Refused(PauseReason),
    /// Its owner has changed what was agreed to meanwhile: whoever comes next ends the order.
    Withdrawn,
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
    match try_once(payments, stripe, payers, top_up, order).await? {
        Tried::Taken => match settled(payments, payers, top_up, order).await? {
            ControlFlow::Break(()) => Ok(()),
            ControlFlow::Continue(()) => look_again(payments, top_up).await,
        },
        Tried::Refused(reason) => refused(payments, stripe, payers, top_up, order, reason).await,
        Tried::Withdrawn => Ok(()),
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
            transaction.commit().await?;
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
            Ok(transaction.commit().await?)
        }
        looked => looked.map(drop),
    }
}

/// Has the payment made if there is none, and charged, if nothing stands against it.
async fn try_once(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    order: &str,
) -> Result<Tried, PaymentError> {
    let books = &payments.books;
    let Some(card) = &top_up.payment_method_id else {
        return Ok(Tried::Refused(PauseReason::PaymentMethodGone));
    };
    let mut transaction = books.database.begin().await?;
    // What was claimed may have waited since.
    let known = store::lock_auto_top_up(&mut transaction, &top_up.user, stripe.is_live()).await?;
    if !known.is_some_and(|known| known.allows(order, card)) {
        return Ok(Tried::Withdrawn);
    }
    if let Err(reason) = find_objection(payments, &mut transaction, payers, top_up).await? {
        return Ok(Tried::Refused(reason));
    }
    let found = purchases::find_order(&mut transaction, order).await?.ok_or(PaymentError::NoSuchPurchase)?;
    let attempt = purchases::find_attempt(&mut transaction, order).await?;
    drop(transaction);
    let payment = match found.payment_id.clone() {
        Some(payment) => payment,
        None => match make_payment(payments, stripe, top_up, &found, card).await {
            Ok(Some(payment)) => payment,
            Ok(None) => return Ok(Tried::Withdrawn),
            Err(PaymentError::Stripe(error)) => return refusal(order, error),
            Err(error) => return Err(error),
        },
    };
    let form =
        vec![("payment_method".to_owned(), card.clone()), ("off_session".to_owned(), "true".to_owned())];
    match stripe.confirm_payment(&payment, &form, &format!("top-up-{order}-{attempt}")).await {
        Ok(payment) if payment.status == "requires_action" => {
            Ok(Tried::Refused(PauseReason::AuthenticationRequired))
        }
        Ok(_) => Ok(Tried::Taken),
        Err(StripeError::Refused { code, .. }) if code == "payment_intent_unexpected_state" => {
            Ok(Tried::Taken)
        }
        Err(error) => refusal(order, error),
    }
}

/// What a refusal means. One that may pass, or that is about the key, which an operator can help, is none yet.
fn refusal(order: &str, error: StripeError) -> Result<Tried, PaymentError> {
    if error.is_about_the_key() {
        return Err(error.into());
    }
    if error.misses("customer") || error.misses("payment_method") {
        return Ok(Tried::Refused(PauseReason::PaymentMethodGone));
    }
    match error {
        StripeError::Refused { status, code, parameter } => {
            tracing::warn!(order, status, code, parameter, "a top-up is refused");
            if status != CARD_REFUSED {
                return Ok(Tried::Refused(PauseReason::ProviderRefuses));
            }
            count("declined");
            Ok(Tried::Refused(match code.as_str() {
                "authentication_required" => PauseReason::AuthenticationRequired,
                _ => PauseReason::Declined,
            }))
        }
        error @ (StripeError::NotFound | StripeError::Unavailable(_) | StripeError::Unreadable(_)) => {
            Err(error.into())
        }
    }
}

/// A payment that charges nothing yet, noted with its order. None if the order is open no more, or its owner has changed what was agreed to:
/// then there is none. One whose note is lost is found again by its key, and is nothing if it is not.
async fn make_payment(
    payments: &Payments,
    stripe: &Stripe,
    top_up: &AutoTopUp,
    order: &Order,
    card: &str,
) -> Result<Option<String>, PaymentError> {
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
    let (customer, now) = (&top_up.customer_id, books.clock.now());
    let mut transaction = books.database.begin().await?;
    let noted = purchases::update_payment(&mut transaction, &order.id, customer, &made.id, now).await?;
    let known = store::lock_auto_top_up(&mut transaction, &top_up.user, stripe.is_live()).await?;
    let noted = noted.filter(|_| known.is_some_and(|known| known.allows(&order.id, card)));
    if noted.is_some() {
        transaction.commit().await?;
    } else {
        drop(transaction);
    }
    // If somebody else was faster, theirs is the one. What is not noted is never charged; cancelled, nobody else does it either.
    if noted.as_ref() != Some(&made.id)
        && let Err(error) = stripe.cancel_payment(&made.id, &format!("cancel-{}", made.id)).await
    {
        tracing::warn!(order = order.id, payment = made.id, %error, "a payment that nobody charges stays open");
    }
    Ok(noted)
}

async fn look_again(payments: &Payments, top_up: &AutoTopUp) -> Result<(), PaymentError> {
    let books = &payments.books;
    let mut transaction = books.database.begin().await?;
    let at = books.clock.now().saturating_add(BETWEEN_LOOKS);
    store::update_next_look(&mut transaction, top_up, at).await?;
    Ok(transaction.commit().await?)
}

/// Waits before the next try, or gives up.
async fn refused(
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
    // Orders are locked before auto top-ups.
    purchases::lock_order(&mut transaction, order).await?;
    let known = store::lock_auto_top_up(&mut transaction, &top_up.user, stripe.is_live()).await?;
    // Whoever has turned it off or changed it has the order ended, and the card forgotten, without waiting for another try.
    let is_same = |known: AutoTopUp| {
        let card = top_up.payment_method_id.as_deref();
        card.is_some_and(|card| known.allows(order, card)) && known.failures == top_up.failures
    };
    if known.is_some_and(is_same) {
        store::update_failures(&mut transaction, &top_up.user, now.saturating_add(pause), now).await?;
        // Under the same key Stripe would give the same refusal again.
        purchases::update_next_attempt(&mut transaction, order).await?;
    }
    Ok(transaction.commit().await?)
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

/// Pauses, unless things have changed meanwhile, or its owner has begun to change them. What is left of the order is wound up by the next pass: until then no other is opened.
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
    let is_same = |known: &AutoTopUp| {
        known.status == top_up.status && known.order_id == top_up.order_id && !known.is_withdrawn()
    };
    if known.as_ref().is_some_and(is_same) {
        pause(&mut transaction, payers, top_up, (reason, till), books.clock.now()).await?;
    }
    Ok(transaction.commit().await?)
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
            match stripe.cancel_payment(&payment, &format!("cancel-{payment}")).await {
                // Refused because it has come to its end, or is on its way to it: the look says which.
                Ok(_) | Err(StripeError::Refused { .. } | StripeError::NotFound) => {}
                Err(error) => return Err(error.into()),
            }
            look(payments, order).await?;
        }
        None => {
            let mut transaction = books.database.begin().await?;
            purchases::update_failed(&mut transaction, order, None, books.clock.now()).await?;
            transaction.commit().await?;
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
