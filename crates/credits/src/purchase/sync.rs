//! Brings an order to what Stripe says of it: looks, merges, and has the ledger follow, in one transaction.

use super::model::{DisputeStatus, Facts, Observation, Order, OrderOrigin, PaymentError};
use super::store;
use super::{PaymentRisk, Payments};
use crate::HeldServices;
use crate::auto_top_up;
use crate::credits_event::{CreditsEvent, events_of};
use crate::ledger::batch::tell;
use crate::ledger::error::LedgerError;
use crate::ledger::model::{Command, Due, Effects, Refusal, Settled, Terms, Wallet};
use crate::ledger::store::{self as wallets, Changed};
use crate::stripe::object::Expandable;
use crate::stripe::{Stripe, StripeError};
use mana_kernel::{TransactionId, UserId};
use mana_platform::{DbError, hold_briefly};
use sqlx::PgConnection;
use std::collections::BTreeMap;
use time::{Date, OffsetDateTime};

/// What an order came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    /// Whether it was credited now.
    pub(crate) is_credited: bool,
    /// Why it is paid and not credited.
    pub(crate) problem: Option<String>,
}

/// Looks at Stripe and does what follows. An order without a till and without a payment is left alone.
pub(crate) async fn sync(payments: &Payments, order: &str) -> Result<Synced, PaymentError> {
    let found = store::find_order(&mut *payments.books.database.acquire().await?, order).await?;
    let found = found.ok_or(PaymentError::NoSuchPurchase)?;
    match observe_order(payments.stripe()?, &found).await? {
        Some(observation) => apply(payments, order, Some(&observation)).await,
        None => Ok(Synced { is_credited: false, problem: found.problem }),
    }
}

/// Everything that Stripe says of an order; nothing of one that has neither a till nor a payment yet.
pub(crate) async fn observe_order(
    stripe: &Stripe,
    order: &Order,
) -> Result<Option<Observation>, StripeError> {
    match (&order.session_id, &order.payment_id) {
        (Some(session), _) => observe(stripe, session).await.map(Some),
        (None, Some(payment)) => {
            let payment = stripe.find_payment(payment).await?;
            complete(stripe, Observation::of_payment(payment)).await.map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// Everything that Stripe says of a session. No transaction that holds an order or a wallet is open meanwhile.
async fn observe(stripe: &Stripe, session: &str) -> Result<Observation, StripeError> {
    let session = stripe.find_session(session).await?;
    let payment = match &session.payment_intent {
        Some(Expandable::Object(payment)) => Some((**payment).clone()),
        Some(Expandable::Id(id)) => Some(stripe.find_payment(id).await?),
        None => None,
    };
    let session = Some(session);
    let nothing_yet =
        Observation { session, payment, refunds: Vec::new(), disputes: Vec::new(), warnings: Vec::new() };
    complete(stripe, nothing_yet).await
}

/// With what became of a payment that was made.
async fn complete(stripe: &Stripe, mut observation: Observation) -> Result<Observation, StripeError> {
    let paid = observation.payment.as_ref().filter(|payment| payment.status == "succeeded");
    if let Some(id) = paid.map(|payment| payment.id.clone()) {
        observation.refunds = stripe.list_refunds(&id).await?;
        observation.disputes = stripe.list_disputes(&id).await?;
        observation.warnings = stripe.list_fraud_warnings(&id).await?;
    }
    Ok(observation)
}

/// Merges what was seen with what is known, and has the ledger follow. Without an observation, what is known is settled.
pub(crate) async fn apply(
    payments: &Payments,
    order: &str,
    observation: Option<&Observation>,
) -> Result<Synced, PaymentError> {
    let mut transaction = payments.books.database.begin().await?;
    let order = store::lock_order(&mut transaction, order).await?.ok_or(PaymentError::NoSuchPurchase)?;
    let origin = order.origin;
    let synced = apply_locked(payments, &mut transaction, order, observation).await?;
    transaction.commit().await?;
    if origin == OrderOrigin::AutoTopUp {
        payments.errands.top_ups.notify_one();
    }
    Ok(synced)
}

/// The same, in the transaction that has locked the order.
pub(crate) async fn apply_locked(
    payments: &Payments,
    connection: &mut PgConnection,
    mut order: Order,
    observation: Option<&Observation>,
) -> Result<Synced, PaymentError> {
    let now = payments.books.clock.now();
    let was = order.clone();
    let known = store::find_facts(connection, &order).await?;
    let mismatch = observation.and_then(|observation| observation.examine(&order).err());
    let facts = match (observation, mismatch) {
        (Some(observation), None) => known.clone().merge(&observation.facts()),
        // What is not what was ordered says nothing about the order.
        (Some(_), Some(_)) | (None, _) => known.clone(),
    };
    if let Some(payment) = observation.filter(|_| mismatch.is_none()).and_then(|seen| seen.payment.as_ref()) {
        order.payment_id = Some(payment.id.clone());
    }
    if observation.is_some() {
        let is_returned = observation.is_some_and(|observation| observation.facts().is_returned());
        order.problem = mismatch.filter(|_| !is_returned).map(|mismatch| mismatch.as_str().to_owned());
    }
    // An older look must not take away what a newer one has found.
    let seen = observation.filter(|seen| mismatch.is_none() && (seen.is_paid() || known.captured_cents == 0));
    if let Some((seen, bill)) = seen.and_then(|seen| Some((seen, seen.bill()?))) {
        if order.granted_mana == 0 {
            let total = seen.total_cents(&order).unwrap_or(order.price_cents);
            order.added_tax_cents = total.saturating_sub(order.price_cents);
        }
        store::update_bill(connection, &order, &bill).await?;
    }
    if mismatch.is_none() {
        settle(payments, connection, &mut order, &facts).await?;
    }
    let stripe_ids = observation.map(stripe_ids).unwrap_or_default();
    store::write_facts(connection, &order, &facts, &stripe_ids, now).await?;
    tell_risks(payments, connection, &order, &known, &facts).await?;
    if let Some(problem) = order.problem.as_ref().filter(|_| was.problem != order.problem) {
        tracing::error!(order = order.id, problem, "a payment is not credited");
    }
    let is_credited = order.granted_mana > 0 && was.granted_mana == 0;
    if is_credited {
        metrics::counter!("purchases_credited_total", "currency" => order.currency.clone()).increment(1);
        tracing::info!(order = order.id, mana = order.granted_mana, "a purchase is credited");
        let completed = CreditsEvent::PurchaseCompleted {
            user: order.user_id.parse().map_err(|_| DbError::unreadable("credits.purchases"))?,
            purchase: order.id.clone(),
            package: order.package_id.clone(),
            credits: order.granted_mana,
            currency: order.currency.clone(),
            price_cents: order.price_cents,
        };
        tell(connection, &payments.books, &[completed], now).await?;
    }
    let has_changed = facts != known
        || (was.granted_mana, was.taken_mana, was.owed_mana)
            != (order.granted_mana, order.taken_mana, order.owed_mana)
        || was.problem != order.problem
        || was.payment_id != order.payment_id;
    store::update_order(connection, &order, &facts, has_changed, now).await?;
    let is_decided = facts.state(order.granted_mana > 0) != "unpaid" || order.problem.is_some();
    if has_changed && is_decided && order.origin == OrderOrigin::AutoTopUp {
        auto_top_up::store::update_due(connection, &order.id, now).await?;
    }
    Ok(Synced { is_credited, problem: order.problem })
}

/// Stripe's ids of refunds that have ours.
fn stripe_ids(observation: &Observation) -> BTreeMap<String, String> {
    let ids = observation.refunds.iter().map(|refund| {
        let ours = refund.metadata.as_ref().and_then(|metadata| metadata.get("refund_id"));
        (ours.unwrap_or(&refund.id).clone(), refund.id.clone())
    });
    ids.collect()
}

/// Has the ledger do what follows from the facts, by its own state machine and its own write.
async fn settle(
    payments: &Payments,
    connection: &mut PgConnection,
    order: &mut Order,
    facts: &Facts,
) -> Result<(), PaymentError> {
    let books = &payments.books;
    if order.granted_mana == 0 && facts.captured_cents == 0 {
        return Ok(());
    }
    let zone = &books.policy.daily_zone;
    let users = [order.user_id.clone()];
    hold_briefly(connection).await?;
    let mut loaded = wallets::lock_wallets(connection, &users, zone).await?;
    if loaded.wallets.is_empty() {
        // An import leaves users without one.
        wallets::insert_wallets(connection, &users, zone, books.clock.now()).await?;
        loaded = wallets::lock_wallets(connection, &users, zone).await?;
    }
    // After the wait for the lock: what is posted long after its time would change balances of the past.
    let now = books.clock.now();
    let (Some(mut wallet), Some(today)) = (loaded.wallets.remove(&order.user_id), loaded.today) else {
        return Err(LedgerError::NoSuchUser.into());
    };
    let terms = terms_of(connection, order, &wallet).await?;
    let settlement = order.settlement(facts, terms);
    let settlement = settlement.ok_or_else(|| DbError::unreadable("credits.purchases"))?;
    let (debt, was_low) = (wallet.debt, wallet.low().is_some());
    wallet.advance_to(now);
    let due = Due { today, daily: books.policy.daily_free };
    let mut new_id = || TransactionId::new(&*books.clock, &*books.rng);
    let mut effects = wallet.settle(due, &mut new_id).map_err(Refusal::from).map_err(LedgerError::from)?;
    match wallet.apply(&Command::Settle(settlement), &mut new_id) {
        Ok(done) => {
            note_settled(order, &done, now);
            effects.append(done);
        }
        Err(Refusal::Closed) if facts.is_returned() => {}
        // Whoever has paid has to get the money back: that is for a person to see to.
        Err(Refusal::Closed) => order.problem = Some("wallet_closed".to_owned()),
        Err(Refusal::OutOfRange(_)) => order.problem = Some("wallet_full".to_owned()),
        Err(refusal) => return Err(LedgerError::from(refusal).into()),
    }
    // Most looks find what is known, and leave the wallet as it is.
    if effects.is_empty() && wallet.debt == debt {
        return Ok(());
    }
    write(connection, &wallet, &effects, today, now).await?;
    // None of its lines is a spend.
    let services = HeldServices::default();
    let events = events_of(&*books.on_credits_event, &order.user_id, &wallet, &effects, was_low, &services);
    Ok(tell(connection, books, &events, now).await?)
}

fn note_settled(order: &mut Order, done: &Effects, now: OffsetDateTime) {
    for Settled { grant, taken, owed } in &done.settled {
        if order.granted_mana == 0 {
            order.granted_mana = order.credits;
            order.grant_sequence = Some(*grant);
            order.completed_at = Some(now);
        }
        order.taken_mana = taken.get();
        order.owed_mana = owed.get();
    }
}

async fn write(
    connection: &mut PgConnection,
    wallet: &Wallet,
    effects: &Effects,
    today: Date,
    now: OffsetDateTime,
) -> Result<(), PaymentError> {
    Ok(wallets::write(connection, &[Changed { wallet, effects }], &[], today, now).await?)
}

/// What the order's grant is, whether or not the wallet still knows it.
async fn terms_of(
    connection: &mut PgConnection,
    order: &Order,
    wallet: &Wallet,
) -> Result<Option<Terms>, DbError> {
    let Some(grant) = order.grant_sequence else { return Ok(None) };
    let found = wallets::find_terms(connection, wallet.id, &[grant]).await?;
    match found.first() {
        Some((_, terms)) => Ok(Some(*terms)),
        None => Err(DbError::unreadable("credits.purchases")),
    }
}

/// Lets the accounts know of what is new and bad.
async fn tell_risks(
    payments: &Payments,
    connection: &mut PgConnection,
    order: &Order,
    known: &Facts,
    facts: &Facts,
) -> Result<(), PaymentError> {
    let is_lost = |facts: &Facts, id: &str| {
        facts.disputes.get(id).is_some_and(|(status, _)| *status == DisputeStatus::Lost)
    };
    let lost = facts.disputes.keys().filter(|id| is_lost(facts, id) && !is_lost(known, id)).count();
    let warned = usize::from(facts.fraud_warned && !known.fraud_warned);
    let user: UserId = order.user_id.parse().map_err(|_| DbError::unreadable("credits.purchases"))?;
    for (risk, count) in [(PaymentRisk::FraudWarning, warned), (PaymentRisk::DisputeLost, lost)] {
        for _ in 0..count {
            let told = payments.on_payment_risk.on_payment_risk(connection, &user, risk, &order.id);
            told.await.map_err(PaymentError::Port)?;
        }
    }
    Ok(())
}
