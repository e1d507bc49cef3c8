//! The pass that watches balances, charges cards, and winds up what was turned off.

use super::model::{AutoTopUp, Status};
use super::{Payers, TopUpNews, charge, open, store};
use crate::purchase::{PaymentError, Payments};
use crate::stripe::object::{CheckoutSession, Expandable};
use crate::stripe::{Stripe, StripeError};
use mana_platform::DbError;
use time::Duration;

/// Nobody else does anything for an auto top-up for so long: a try takes a few calls of some seconds at most. What failed in a way that
/// passes is tried again then.
const LEASE: Duration = Duration::minutes(2);
/// Auto top-ups that are taken together.
const BATCH: i64 = 20;
/// How often a till is looked at where a card is to be saved, if no delivery comes.
const BETWEEN_LOOKS: Duration = Duration::minutes(5);

/// Opens what is due, and does the next thing for whatever is open.
///
/// # Errors
/// When the database fails.
pub async fn work(payments: &Payments, payers: &dyn Payers) -> Result<(), PaymentError> {
    let Some(stripe) = &payments.stripe else { return Ok(()) };
    open::open_crossed(payments, stripe, payers).await?;
    let books = &payments.books;
    loop {
        let now = books.clock.now();
        let mut transaction = books.database.begin().await?;
        let until = now.saturating_add(LEASE);
        let claimed = store::update_claimed(&mut transaction, stripe.is_live(), now, until, BATCH).await?;
        transaction.commit().await.map_err(DbError::from)?;
        if claimed.is_empty() {
            return Ok(());
        }
        for top_up in claimed {
            if let Err(error) = follow(payments, stripe, payers, &top_up).await {
                tracing::warn!(user = %top_up.user, order = top_up.order_id, %error, "an auto top-up waits");
            }
        }
    }
}

async fn follow(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
) -> Result<(), PaymentError> {
    match (top_up.status, &top_up.setup_session_id, &top_up.order_id) {
        (Status::Setup, Some(session), _) => look_at_till(payments, stripe, payers, top_up, session).await,
        (Status::Active, _, Some(order)) => charge::charge(payments, stripe, payers, top_up, order).await,
        _ => wind_up(payments, stripe, top_up).await,
    }
}

/// Whether a card was saved.
async fn look_at_till(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    session: &str,
) -> Result<(), PaymentError> {
    let books = &payments.books;
    let (found, is_over) = match stripe.find_setup(session).await {
        Ok(found) => {
            let is_over = found.status.as_deref() == Some("expired");
            (Some(found), is_over)
        }
        Err(StripeError::NotFound) => (None, true),
        Err(error) => return Err(error.into()),
    };
    let card = found.as_ref().and_then(|found| saved_card(found, top_up));
    let now = books.clock.now();
    let mut transaction = books.database.begin().await?;
    let known = store::lock_auto_top_up(&mut transaction, &top_up.user, stripe.is_live()).await?;
    if known.is_some_and(|known| known.setup_session_id.as_deref() == Some(session)) {
        match card {
            Some(card) => {
                store::update_activated(&mut transaction, &top_up.user, &card, now).await?;
                let told = payers.on_top_up_news(&mut transaction, &top_up.user, TopUpNews::TurnedOn);
                told.await.map_err(PaymentError::Port)?;
            }
            None if is_over => drop(store::update_off(&mut transaction, &top_up.user, now).await?),
            None => {
                store::update_next_look(&mut transaction, top_up, now.saturating_add(BETWEEN_LOOKS)).await?;
            }
        }
    }
    Ok(transaction.commit().await.map_err(DbError::from)?)
}

/// The card that was saved, if it is this user's.
fn saved_card(session: &CheckoutSession, top_up: &AutoTopUp) -> Option<String> {
    let named = session.metadata.as_ref().and_then(|metadata| metadata.get("auto_top_up"));
    let is_ours = named.is_some_and(|user| user == top_up.user.as_str())
        && session.customer.as_ref().map(Expandable::id) == Some(&top_up.customer_id);
    match &session.setup_intent {
        Some(Expandable::Object(setup)) if is_ours && setup.status == "succeeded" => {
            setup.payment_method.as_ref().map(|card| card.id().to_owned())
        }
        _ => None,
    }
}

/// Ends what is under way, and forgets the card of what is off.
async fn wind_up(payments: &Payments, stripe: &Stripe, top_up: &AutoTopUp) -> Result<(), PaymentError> {
    charge::cancel(payments, stripe, top_up).await?;
    let card = top_up.payment_method_id.as_ref().filter(|_| top_up.status == Status::Off);
    if let Some(card) = card {
        match stripe.detach_payment_method(card, &format!("forget-{card}")).await {
            Ok(_) | Err(StripeError::NotFound | StripeError::Refused { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut transaction = payments.books.database.begin().await?;
    store::update_wound_up(&mut transaction, top_up, payments.books.clock.now()).await?;
    Ok(transaction.commit().await.map_err(DbError::from)?)
}
