//! Compares the orders with Stripe, both ways, and puts right what a lost delivery owes.

use super::Payments;
use super::model::{Facts, Observation, Order, OrderOrigin, PaymentError};
use super::statement::StatementLine;
use super::store;
use super::sync::{apply, observe_order};
use crate::stripe::object::{CheckoutSession, Expandable};
use crate::stripe::{Stripe, StripeError};
use crate::webhook;
use mana_platform::DbError;
use serde::Serialize;
use std::collections::BTreeSet;
use time::{Duration, OffsetDateTime};

/// Orders that are read together.
const PAGE: i64 = 500;
/// How far back the comparison that runs by itself looks: deliveries are tried for three days.
const LOOKS_BACK: Duration = Duration::days(4);
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
    let mut report = Report::default();
    let mut orders = candidates(payments, stripe, since).await?;
    orders.extend(known_to_stripe(payments, stripe, since, &mut report).await?);
    for order in orders {
        compare(payments, stripe, &order, fixes, &mut report).await?;
    }
    report.lost_events = webhook::catch_up(payments, stripe, since.unix_timestamp(), fixes).await?;
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
    report: &mut Report,
) -> Result<BTreeSet<String>, PaymentError> {
    let seconds = since.unix_timestamp();
    let mut orders = BTreeSet::new();
    for session in stripe.list_sessions_since(seconds).await? {
        // Others may sell through the same account.
        let Some(order) = session.metadata.as_ref().and_then(|metadata| metadata.get("order_id")) else {
            continue;
        };
        let mut connection = payments.books.database.acquire().await?;
        match store::find_order_id(&mut connection, Some(order), None, None).await? {
            Some(known) => drop(orders.insert(known)),
            None if session.payment_status == "paid" => {
                report.add(
                    None,
                    Some(&session.id),
                    false,
                    format!("order {order} is paid there and unknown here"),
                );
            }
            None => {}
        }
        drop(connection);
        adopt(payments, order, &session).await?;
    }
    for payment in stripe.list_payments_since(seconds).await? {
        // Those of a till are found by it.
        let by = payment.metadata.get("origin").filter(|origin| *origin == OrderOrigin::AutoTopUp.as_str());
        let Some(order) = by.and(payment.metadata.get("order_id")) else { continue };
        let mut connection = payments.books.database.acquire().await?;
        match store::find_order_id(&mut connection, Some(order), None, None).await? {
            Some(known) => drop(orders.insert(known)),
            None if payment.status == "succeeded" => {
                let sentence = format!("order {order} is paid there and unknown here");
                report.add(None, Some(&payment.id), false, sentence);
            }
            None => {}
        }
    }
    let refunds = stripe.list_refunds_since(seconds).await?.into_iter().map(|refund| refund.payment_intent);
    let disputes =
        stripe.list_disputes_since(seconds).await?.into_iter().map(|dispute| dispute.payment_intent);
    for payment in refunds.chain(disputes).flatten() {
        let mut connection = payments.books.database.acquire().await?;
        orders.extend(store::find_order_id(&mut connection, None, None, Some(payment.id())).await?);
    }
    Ok(orders)
}

/// A till whose answer was lost is noted, so that its payment can be found.
async fn adopt(payments: &Payments, order: &str, session: &CheckoutSession) -> Result<(), PaymentError> {
    let Some(customer) = session.customer.as_ref().map(Expandable::id) else { return Ok(()) };
    let columns = store::SessionColumns {
        customer_id: customer,
        session_id: &session.id,
        checkout_url: session.url.as_deref(),
        client_secret: None,
        expires_at: session.expires_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
    };
    let mut transaction = payments.books.database.begin().await?;
    store::update_session(&mut transaction, order, &columns, payments.books.clock.now()).await?;
    Ok(transaction.commit().await.map_err(DbError::from)?)
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
    Ok(lock.commit().await.map_err(DbError::from)?)
}
