//! The pass that works on deliveries.

use super::store::{self, WaitingEvent};
use crate::auto_top_up;
use crate::purchase::sync::sync;
use crate::purchase::{self, PaymentError, Payments, adopt_told};
use crate::stripe::object::{Event, EventObject, Expandable, Metadata};
use crate::stripe::{Stripe, StripeError};
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// Nobody else gets a delivery for so long: looking takes a few calls of some seconds at most.
const LEASE: Duration = Duration::minutes(2);
/// Deliveries of a pass that are taken together; those of one order are one look.
const BATCH: i64 = 50;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::hours(1);
/// What failed for so long is left to the comparison with Stripe.
const GIVE_UP_AFTER: Duration = Duration::days(3);
/// What is of no interest to a shop that sells once.
const KINDS: [&str; 5] =
    ["checkout.session.", "payment_intent.", "charge.", "refund.", "radar.early_fraud_warning."];

/// Works on all deliveries that are due.
///
/// # Errors
/// When the database fails.
pub async fn work(payments: &Payments) -> Result<(), PaymentError> {
    let Some(stripe) = &payments.stripe else { return Ok(()) };
    loop {
        let now = payments.books.clock.now();
        let mut transaction = payments.books.database.begin().await?;
        let claimed = store::update_claimed(&mut transaction, now, now.saturating_add(LEASE), BATCH).await?;
        let waiting = store::count_waiting(&mut transaction).await?;
        transaction.commit().await?;
        metrics::gauge!("stripe_events_waiting").set(u32::try_from(waiting).unwrap_or(u32::MAX));
        if claimed.is_empty() {
            return Ok(());
        }
        work_on(payments, stripe, claimed).await?;
    }
}

async fn work_on(
    payments: &Payments,
    stripe: &Stripe,
    claimed: Vec<WaitingEvent>,
) -> Result<(), PaymentError> {
    let mut by_order: BTreeMap<String, Vec<WaitingEvent>> = BTreeMap::new();
    for event in claimed {
        if is_of_auto_top_up(payments, &event).await? {
            note(payments, &[event.id], "done").await?;
            continue;
        }
        match find_order(payments, stripe, &event).await {
            Ok(Some(order)) => by_order.entry(order).or_default().push(event),
            Ok(None) => note(payments, &[event.id], "ignored").await?,
            Err(error) => delay(payments, &event, &error).await?,
        }
    }
    for (order, events) in by_order {
        match sync(payments, &order).await {
            Ok(_) => {
                let ids: Vec<String> = events.into_iter().map(|event| event.id).collect();
                note(payments, &ids, "done").await?;
            }
            Err(error) => {
                for event in &events {
                    delay(payments, event, &error).await?;
                }
            }
        }
    }
    Ok(())
}

/// Whether a delivery is about a till where a card is saved: that is looked at then.
async fn is_of_auto_top_up(payments: &Payments, event: &WaitingEvent) -> Result<bool, PaymentError> {
    let Ok(event) = serde_json::from_str::<Event>(&event.payload) else { return Ok(false) };
    let object = event.data.object;
    let is_named = object.metadata.is_some_and(|metadata| metadata.contains_key("auto_top_up"));
    let session = object.id.filter(|_| is_named && event.r#type.starts_with("checkout.session."));
    let Some(session) = session else { return Ok(false) };
    let mut transaction = payments.books.database.begin().await?;
    let now = payments.books.clock.now();
    let is_known = auto_top_up::store::update_setup_due(&mut transaction, &session, now).await?;
    transaction.commit().await?;
    payments.errands.top_ups.notify_one();
    Ok(is_known)
}

/// The order that a delivery is about; none if it is not about one of ours.
async fn find_order(
    payments: &Payments,
    stripe: &Stripe,
    event: &WaitingEvent,
) -> Result<Option<String>, PaymentError> {
    let Ok(event) = serde_json::from_str::<Event>(&event.payload) else { return Ok(None) };
    if !KINDS.iter().any(|kind| event.r#type.starts_with(kind)) {
        return Ok(None);
    }
    if event.livemode != stripe.is_live() || event.account.is_some() {
        tracing::warn!(
            event = event.id,
            livemode = event.livemode,
            "a delivery of another mode or account is ignored"
        );
        return Ok(None);
    }
    let EventObject { id, client_reference_id, metadata, payment_intent } = event.data.object;
    let named = client_reference_id.or_else(|| metadata.and_then(named_in));
    let payment = payment_intent.as_ref().map(|payment| Expandable::id(payment).to_owned());
    let payment = payment.or_else(|| id.clone().filter(|id| id.starts_with("pi_")));
    let mut connection = payments.books.database.acquire().await?;
    let (by_name, by_session) = (named.as_deref(), id.as_deref());
    let known =
        purchase::store::find_order_id(&mut connection, by_name, by_session, payment.as_deref()).await?;
    drop(connection);
    match (known, payment) {
        (Some(order), Some(payment)) if event.r#type == "payment_intent.succeeded" => {
            adopt_told(payments, stripe, &order, &payment).await?;
            Ok(Some(order))
        }
        (Some(order), _) => Ok(Some(order)),
        // A refund or a dispute overtook the news of its payment: only the payment names the order.
        (None, Some(payment)) if named.is_none() => {
            let named = match stripe.find_payment(&payment).await {
                Ok(payment) => named_in(payment.metadata),
                Err(StripeError::NotFound) => None,
                Err(error) => return Err(error.into()),
            };
            let mut connection = payments.books.database.acquire().await?;
            Ok(purchase::store::find_order_id(&mut connection, named.as_deref(), None, None).await?)
        }
        (None, _) => Ok(None),
    }
}

/// The order that metadata name: as ours do, or as those of the older service did.
fn named_in(mut metadata: Metadata) -> Option<String> {
    metadata.remove("order_id").or_else(|| metadata.remove("purchaseId"))
}

async fn note(payments: &Payments, events: &[String], outcome: &'static str) -> Result<(), PaymentError> {
    let mut transaction = payments.books.database.begin().await?;
    store::update_outcome(&mut transaction, events, outcome, payments.books.clock.now()).await?;
    transaction.commit().await?;
    let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
    metrics::counter!("stripe_events_total", "outcome" => outcome).increment(count);
    Ok(())
}

/// Lets a delivery wait, ever longer; in the end it is given up.
async fn delay(payments: &Payments, event: &WaitingEvent, error: &PaymentError) -> Result<(), PaymentError> {
    let now = payments.books.clock.now();
    let text: String = error.to_string().chars().take(500).collect();
    if now.saturating_sub(GIVE_UP_AFTER) >= event.received_at {
        tracing::error!(
            event = event.id,
            error = text,
            "a delivery is given up; the comparison with Stripe finds what it was about"
        );
        return note(payments, std::slice::from_ref(&event.id), "given_up").await;
    }
    tracing::warn!(event = event.id, error = text, attempts = event.attempts, "a delivery waits");
    let mut transaction = payments.books.database.begin().await?;
    let at = next_attempt(event.attempts, now);
    store::update_next_attempt(&mut transaction, event, at, &text).await?;
    Ok(transaction.commit().await?)
}

/// 2, 4, 8 … seconds, an hour at most.
fn next_attempt(attempts: i32, now: OffsetDateTime) -> OffsetDateTime {
    let exponent = u32::try_from(attempts.clamp(1, 12)).unwrap_or(12);
    let pause = Duration::seconds(2_i64.saturating_pow(exponent)).min(LONGEST_PAUSE);
    now.saturating_add(pause)
}

/// Takes events in that Stripe tells of and never delivered, and says how many there were.
pub(crate) async fn catch_up(
    payments: &Payments,
    stripe: &Stripe,
    since: i64,
    fixes: bool,
) -> Result<u64, PaymentError> {
    let now = payments.books.clock.now();
    let (mut pages, mut lost) = (stripe.list_events_since(since), 0_u64);
    while let Some(page) = pages.next().await? {
        let told: BTreeMap<String, Event> = page
            .into_iter()
            .filter(|event| KINDS.iter().any(|kind| event.r#type.starts_with(kind)))
            .map(|event| (event.id.clone(), event))
            .collect();
        let ids: Vec<String> = told.keys().cloned().collect();
        let mut transaction = payments.books.database.begin().await?;
        let unknown = store::list_unknown(&mut transaction, &ids).await?;
        if fixes {
            for event in unknown.iter().filter_map(|id| told.get(id)) {
                let pointer = event.pointer();
                store::insert_event(&mut transaction, &event.id, &event.r#type, &pointer, now).await?;
            }
        }
        transaction.commit().await?;
        lost = lost.saturating_add(u64::try_from(unknown.len()).unwrap_or(u64::MAX));
    }
    if fixes && lost > 0 {
        payments.errands.deliveries.notify_one();
    }
    Ok(lost)
}

#[cfg(test)]
mod tests {
    use super::next_attempt;
    use time::macros::datetime;

    #[test]
    fn attempts_are_ever_farther_apart_up_to_an_hour() {
        let now = datetime!(2026-01-01 12:00 UTC);
        let pauses: Vec<i64> = [1, 2, 5, 11, 12, 1_000, 0]
            .iter()
            .map(|n| (next_attempt(*n, now) - now).whole_seconds())
            .collect();
        assert_eq!(pauses, [2, 4, 32, 2_048, 3_600, 3_600, 2]);
    }
}
