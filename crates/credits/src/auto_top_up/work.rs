//! The pass that watches balances, charges cards, and winds up what was turned off.

use super::model::{AutoTopUp, Status};
use super::{Payers, TopUpNews, charge, open, store};
use crate::purchase::{PaymentError, Payments};
use crate::stripe::object::{CheckoutSession, Expandable};
use crate::stripe::{Stripe, StripeError};
use mana_platform::hold_briefly;
use time::Duration;

/// Nobody else does anything for an auto top-up for so long: a try takes a few calls of some seconds at most. What failed in a way that
/// passes is tried again then.
pub(super) const LEASE: Duration = Duration::minutes(2);
/// Owners of one statement.
const PAGE: i64 = 500;
/// How often a till is looked at where a card is to be saved, if no delivery comes.
const BETWEEN_LOOKS: Duration = Duration::minutes(5);

/// Opens what is due, and does the next thing for whatever is open.
///
/// # Errors
/// When the database fails.
pub async fn work(payments: &Payments, payers: &dyn Payers) -> Result<(), PaymentError> {
    let Some(stripe) = &payments.stripe else { return Ok(()) };
    open::open_fallen(payments, stripe, payers).await?;
    let books = &payments.books;
    loop {
        let now = books.clock.now();
        let mut transaction = books.database.begin().await?;
        let until = now.saturating_add(LEASE);
        let claimed = store::update_claimed(&mut transaction, stripe.is_live(), now, until).await?;
        transaction.commit().await?;
        // One by one: what is claimed later is what it is then, and no lease runs out while another is followed.
        let Some(top_up) = claimed else { return Ok(()) };
        if let Err(error) = follow(payments, stripe, payers, &top_up).await {
            tracing::warn!(user = %top_up.user, order = top_up.order_id, %error, "an auto top-up waits");
        }
    }
}

/// Finds what the ledger gave no notice of, because a server of the release before still ran.
///
/// # Errors
/// When the database fails.
pub async fn catch_up(payments: &Payments) -> Result<(), PaymentError> {
    let Some(stripe) = &payments.stripe else { return Ok(()) };
    let books = &payments.books;
    let (mut after, mut found) = (String::new(), 0_u64);
    loop {
        let mut transaction = books.database.begin().await?;
        hold_briefly(&mut transaction).await?;
        let Some(end) = store::update_thresholds(&mut transaction, &after, PAGE).await? else { break };
        let (page, now) = ((after.as_str(), end.as_str()), books.clock.now());
        let more = store::update_unnoticed(&mut transaction, stripe.is_live(), page, now).await?;
        transaction.commit().await?;
        found = found.saturating_add(more);
        after = end;
    }
    if found > 0 {
        tracing::info!(found, "wallets are below their thresholds of which there was no notice");
        payments.errands.top_ups.notify_one();
    }
    Ok(())
}

async fn follow(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
) -> Result<(), PaymentError> {
    let tidied = tidy(payments, stripe, top_up).await;
    let followed = match (top_up.status, &top_up.setup_session_id, &top_up.order_id) {
        (Status::Setup, Some(session), _) => look_at_till(payments, stripe, payers, top_up, session).await,
        (Status::Active, _, Some(order)) if !top_up.is_withdrawn() => {
            charge::charge(payments, stripe, payers, top_up, order).await
        }
        _ => wind_up(payments, stripe, top_up).await,
    };
    followed.and(tidied)
}

/// Closes tills that were let go, and has Stripe forget the cards that are of no more use: those that were saved at such a till too.
async fn tidy(payments: &Payments, stripe: &Stripe, top_up: &AutoTopUp) -> Result<(), PaymentError> {
    let AutoTopUp { tills_to_close: tills, cards_to_forget: cards, .. } = top_up;
    if tills.is_empty() && cards.is_empty() {
        return Ok(());
    }
    let mut useless = cards.clone();
    for till in tills {
        match close_till(stripe, till, top_up).await? {
            Some(card) if top_up.payment_method_id.as_ref() != Some(&card) => useless.push(card),
            _ => {}
        }
    }
    for card in &useless {
        forget_card(stripe, card).await?;
    }
    let mut transaction = payments.books.database.begin().await?;
    store::update_tidied(&mut transaction, &top_up.user, tills, cards).await?;
    Ok(transaction.commit().await?)
}

/// Closes a till, and gives the card that was saved there before that.
async fn close_till(stripe: &Stripe, till: &str, top_up: &AutoTopUp) -> Result<Option<String>, PaymentError> {
    match stripe.expire_session(till).await {
        Ok(_) | Err(StripeError::NotFound) => return Ok(None),
        Err(error) if error.is_about_the_key() => return Err(error.into()),
        // It is over already.
        Err(StripeError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    match stripe.find_setup(till).await {
        Ok(found) => Ok(saved_card(&found, top_up)),
        Err(StripeError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn forget_card(stripe: &Stripe, card: &str) -> Result<(), PaymentError> {
    match stripe.detach_payment_method(card, &format!("forget-{card}")).await {
        Err(error) if error.is_about_the_key() => Err(error.into()),
        Ok(_) | Err(StripeError::NotFound | StripeError::Refused { .. }) => Ok(()),
        Err(error) => Err(error.into()),
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
    Ok(transaction.commit().await?)
}

/// The card that was saved, if it is this user's.
pub(super) fn saved_card(session: &CheckoutSession, top_up: &AutoTopUp) -> Option<String> {
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
        forget_card(stripe, card).await?;
    }
    let mut transaction = payments.books.database.begin().await?;
    store::update_wound_up(&mut transaction, top_up, payments.books.clock.now()).await?;
    Ok(transaction.commit().await?)
}
