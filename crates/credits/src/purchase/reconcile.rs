//! Compares the orders with Stripe, both ways, and puts right what a lost delivery owes.

use super::Payments;
use super::adopt::{adopt_payment, adopt_till};
use super::model::{Facts, Observation, Order, OrderOrigin, PaymentError};
use super::statement::StatementLine;
use super::store;
use super::sync::{apply, observe_order};
use crate::stripe::object::{CheckoutSession, PaymentIntent};
use crate::stripe::{Stripe, StripeError};
use crate::webhook;
use serde::Serialize;
use std::collections::BTreeSet;
use time::{Duration, OffsetDateTime};

/// Orders that are read together.
const PAGE: i64 = 500;
/// How far back the comparison that runs by itself looks: deliveries are tried for three days.
const LOOKS_BACK: Duration = Duration::days(4);
/// Orders in a row for which Stripe can't be asked: then it is away, and so is the comparison.
const MAX_UNANSWERED: u32 = 5;
/// Findings that are kept; beyond that they are only counted.
const MAX_FINDINGS: usize = 1_000;

/// Where an order and Stripe differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The order; none if Stripe has what is no order here.
    pub order: Option<String>,
    /// Stripe's name of its session, or of its payment where there is none.
    pub session: Option<String>,
    /// What differs.
    pub sentence: String,
    /// Whether it was put right.
    pub is_fixed: bool,
}

/// What a comparison came to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Orders compared.
    pub orders: u64,
    /// Orders that were credited because of it.
    pub credited: u64,
    /// Deliveries that never came.
    pub lost_events: u64,
    /// The first findings.
    pub findings: Vec<Finding>,
    /// Findings that are not put right, those included that are not kept.
    pub open: u64,
    /// All payments so far.
    pub statement: Vec<StatementLine>,
}

impl Report {
    /// Whether the books and Stripe agree.
    pub fn agrees(&self) -> bool {
        self.open == 0 && self.statement.iter().all(StatementLine::is_balanced)
    }

    fn add(&mut self, order: Option<&str>, session: Option<&str>, is_fixed: bool, sentence: String) {
        if !is_fixed {
            self.open = self.open.saturating_add(1);
        }
        if self.findings.len() < MAX_FINDINGS {
            let (order, session) = (order.map(str::to_owned), session.map(str::to_owned));
            self.findings.push(Finding { order, session, sentence, is_fixed });
        }
    }
}

/// Compares everything since a time, and what is still open from before. `fixes` puts right what differs.
///
/// # Errors
/// When Stripe or the database can't be asked.
pub async fn reconcile(
    payments: &Payments,
    since: OffsetDateTime,
    fixes: bool,
) -> Result<Report, PaymentError> {
    let stripe = payments.stripe()?;
    // First what is short and owes somebody something: whatever fails further on, lost deliveries are there then.
    let lost_events = webhook::catch_up(payments, stripe, since.unix_timestamp(), fixes).await?;
    let mut report = Report { lost_events, ..Report::default() };
    let mut orders = candidates(payments, stripe, since).await?;
    orders.extend(known_to_stripe(payments, stripe, since, fixes, &mut report).await?);
    let mut unanswered: u32 = 0;
    for order in orders {
        match compare(payments, stripe, &order, fixes, &mut report).await {
            Ok(()) => unanswered = 0,
            Err(PaymentError::Database(error)) => return Err(error.into()),
            Err(error) => {
                let is_away = matches!(error, PaymentError::Stripe(StripeError::Unavailable(_)));
                unanswered = if is_away { unanswered.saturating_add(1) } else { 0 };
                if unanswered >= MAX_UNANSWERED {
                    return Err(error);
                }
                report.add(Some(&order), None, false, format!("it can't be compared: {error}"));
            }
        }
    }
    let mut connection = payments.books.database.acquire().await?;
    report.statement = store::sum_statement(&mut connection).await?;
    Ok(report)
}

/// Our orders that are worth a look.
async fn candidates(
    payments: &Payments,
    stripe: &Stripe,
    since: OffsetDateTime,
) -> Result<BTreeSet<String>, PaymentError> {
    let mut connection = payments.books.database.acquire().await?;
    let (mut all, mut last) = (BTreeSet::new(), String::new());
    loop {
        let page = store::list_candidates(&mut connection, since, stripe.is_live(), &last, PAGE).await?;
        let Some(newest) = page.last() else { return Ok(all) };
        last.clone_from(newest);
        all.extend(page);
    }
}

/// Orders that Stripe tells of. What is paid there and unknown here is a finding.
async fn known_to_stripe(
    payments: &Payments,
    stripe: &Stripe,
    since: OffsetDateTime,
    fixes: bool,
    report: &mut Report,
) -> Result<BTreeSet<String>, PaymentError> {
    let seconds = since.unix_timestamp();
    let mut orders = BTreeSet::new();
    let mut sessions = stripe.list_sessions_since(seconds);
    while let Some(page) = sessions.next().await? {
        for session in page {
            orders.extend(of_session(payments, &session, fixes, report).await?);
        }
    }
    let mut made = stripe.list_payments_since(seconds);
    while let Some(page) = made.next().await? {
        for payment in page {
            orders.extend(of_payment(payments, &payment, fixes, report).await?);
        }
    }
    let (mut refunds, mut disputes) =
        (stripe.list_refunds_since(seconds), stripe.list_disputes_since(seconds));
    while let Some(page) = refunds.next().await? {
        let of = page.into_iter().filter_map(|refund| refund.payment_intent);
        orders.extend(of_payments(payments, of.map(|payment| payment.id().to_owned())).await?);
    }
    while let Some(page) = disputes.next().await? {
        let of = page.into_iter().filter_map(|dispute| dispute.payment_intent);
        orders.extend(of_payments(payments, of.map(|payment| payment.id().to_owned())).await?);
    }
    Ok(orders)
}

/// The order of a session. A till whose answer was lost is noted with it.
async fn of_session(
    payments: &Payments,
    session: &CheckoutSession,
    fixes: bool,
    report: &mut Report,
) -> Result<Option<String>, PaymentError> {
    // Others may sell through the same account.
    let Some(id) = session.metadata.as_ref().and_then(|metadata| metadata.get("order_id")) else {
        return Ok(None);
    };
    let is_paid = session.payment_status == "paid";
    let found = store::find_order(&mut *payments.books.database.acquire().await?, id).await?;
    let Some(order) = found else {
        if is_paid {
            report.add(None, Some(&session.id), false, format!("order {id} is paid there and unknown here"));
        }
        return Ok(None);
    };
    if order.lacks(session) && fixes {
        adopt_till(payments, &order, session).await?;
    } else if is_paid && order.session_id.as_ref() != Some(&session.id) {
        report.add(Some(id), Some(&session.id), false, "it is paid at a till that is not noted".to_owned());
    }
    Ok(Some(order.id))
}

/// The order of a payment of an auto top-up. One whose note was lost is noted with it. Those of a till are found by it.
async fn of_payment(
    payments: &Payments,
    payment: &PaymentIntent,
    fixes: bool,
    report: &mut Report,
) -> Result<Option<String>, PaymentError> {
    let by = payment.metadata.get("origin").filter(|origin| *origin == OrderOrigin::AutoTopUp.as_str());
    let Some(id) = by.and(payment.metadata.get("order_id")) else { return Ok(None) };
    let is_paid = payment.status == "succeeded";
    let found = store::find_order(&mut *payments.books.database.acquire().await?, id).await?;
    let Some(order) = found else {
        if is_paid {
            report.add(None, Some(&payment.id), false, format!("order {id} is paid there and unknown here"));
        }
        return Ok(None);
    };
    if order.lacks_payment(payment) && fixes {
        adopt_payment(payments, &order, payment).await?;
    } else if is_paid && order.payment_id.as_ref() != Some(&payment.id) {
        report.add(
            Some(id),
            Some(&payment.id),
            false,
            "it is paid by a payment that is not noted".to_owned(),
        );
    }
    Ok(Some(order.id))
}

/// The orders of payments.
async fn of_payments(
    payments: &Payments,
    ids: impl Iterator<Item = String>,
) -> Result<Vec<String>, PaymentError> {
    let mut connection = payments.books.database.acquire().await?;
    let mut orders = Vec::new();
    for id in ids {
        orders.extend(store::find_order_id(&mut connection, None, None, Some(&id)).await?);
    }
    Ok(orders)
}

async fn compare(
    payments: &Payments,
    stripe: &Stripe,
    id: &str,
    fixes: bool,
    report: &mut Report,
) -> Result<(), PaymentError> {
    let mut connection = payments.books.database.acquire().await?;
    let Some(order) = store::find_order(&mut connection, id).await? else { return Ok(()) };
    let known = store::find_facts(&mut connection, &order).await?;
    drop(connection);
    report.orders = report.orders.saturating_add(1);
    let Some(session) = order.session_id.clone().or_else(|| order.payment_id.clone()) else { return Ok(()) };
    let seen = match observe_order(stripe, &order).await {
        Ok(Some(seen)) => seen,
        Ok(None) => return Ok(()),
        Err(StripeError::NotFound) => {
            // An open till that is gone costs nobody anything: a Stripe of dev mode forgets.
            if order.captured_cents > 0 {
                report.add(
                    Some(id),
                    Some(&session),
                    false,
                    "it is paid here and unknown at Stripe".to_owned(),
                );
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let sentence = difference(&order, &known, &seen);
    if !fixes {
        if let Some(sentence) = sentence {
            report.add(Some(id), Some(&session), false, sentence);
        }
        return Ok(());
    }
    let synced = apply(payments, id, Some(&seen)).await?;
    report.credited = report.credited.saturating_add(u64::from(synced.is_credited));
    match (synced.problem, sentence) {
        (Some(problem), _) => {
            report.add(Some(id), Some(&session), false, format!("it is paid and not credited: {problem}"));
        }
        (None, Some(sentence)) => report.add(Some(id), Some(&session), true, sentence),
        (None, None) => {}
    }
    Ok(())
}

/// What Stripe knows that is not known here.
fn difference(order: &Order, known: &Facts, seen: &Observation) -> Option<String> {
    if let Err(mismatch) = seen.examine(order) {
        let is_open = !seen.facts().is_returned();
        return is_open.then(|| format!("it is not what was ordered: {}", mismatch.as_str()));
    }
    let now = known.clone().merge(&seen.facts());
    if now.captured_cents > known.captured_cents {
        return Some(format!("{} cents were paid and not noted", now.captured_cents));
    }
    if Some(now.captured_cents) == seen.total_cents(order) && order.granted_mana == 0 && !now.is_returned() {
        return Some("it is paid and not credited".to_owned());
    }
    if now.refunds != known.refunds {
        return Some("refunds are not noted".to_owned());
    }
    if now.disputes != known.disputes {
        return Some("disputes are not noted".to_owned());
    }
    (now.fraud_warned != known.fraud_warned).then(|| "a fraud warning is not noted".to_owned())
}

/// Compares and puts right by itself, one server at a time, and keeps the day's statement. Does nothing without Stripe.
///
/// The transaction that holds the advisory lock stays open, idle and without a lock of a row, while Stripe is asked: PostgreSQL must let it be
/// idle for as long as a pass may take (`idle_in_transaction_session_timeout`). If it is ended all the same, another server may begin too, which
/// is safe: to settle twice is to settle once. An index that is built concurrently waits until the pass is over.
///
/// # Errors
/// When Stripe or the database can't be asked.
pub async fn keep_reconciled(payments: &Payments) -> Result<(), PaymentError> {
    if payments.stripe.is_none() {
        return Ok(());
    }
    let now = payments.books.clock.now();
    let mut lock = payments.books.database.begin().await?;
    if !store::hold_comparison(&mut lock).await? {
        return Ok(());
    }
    let report = reconcile(payments, now.saturating_sub(LOOKS_BACK), true).await?;
    for finding in report.findings.iter().filter(|finding| !finding.is_fixed) {
        tracing::error!(
            order = finding.order,
            session = finding.session,
            what = finding.sentence,
            "a payment does not match"
        );
    }
    for line in report.statement.iter().filter(|line| !line.is_balanced()) {
        tracing::error!(currency = line.currency, "paid grants are not what was paid less what went back");
    }
    if report.credited > 0 || report.lost_events > 0 {
        tracing::warn!(
            credited = report.credited,
            lost_events = report.lost_events,
            "deliveries of Stripe were lost"
        );
    }
    for line in &report.statement {
        store::insert_statement(&mut lock, now.date(), line, now).await?;
    }
    let unbalanced = report.statement.iter().filter(|line| !line.is_balanced()).count();
    let open = report.open.saturating_add(u64::try_from(unbalanced).unwrap_or(u64::MAX));
    metrics::gauge!("payments_unreconciled").set(u32::try_from(open).unwrap_or(u32::MAX));
    metrics::counter!("payments_lost_events_total").increment(report.lost_events);
    let problems = store::count_problems(&mut lock).await?;
    metrics::gauge!("payments_uncredited").set(u32::try_from(problems).unwrap_or(u32::MAX));
    let seconds = i32::try_from(now.unix_timestamp()).unwrap_or(i32::MAX);
    metrics::gauge!("payments_reconcile_last_success_timestamp_seconds").set(seconds);
    Ok(lock.commit().await?)
}
