//! Orders of the older service: which of them can be orders here, and what is kept of them.

use super::model::OldOrder;
use super::package::Sales;
use mana_kernel::mana::MAX_MANA;
use mana_kernel::{Amount, Line};
use time::OffsetDateTime;

/// An order as its row will be.
#[derive(Debug)]
pub(crate) struct BroughtOrder<'a> {
    pub(crate) id: &'a str,
    pub(crate) package_id: String,
    pub(crate) package_version: i32,
    pub(crate) credits: i64,
    pub(crate) price_cents: i64,
    pub(crate) livemode: bool,
    pub(crate) customer_id: Option<&'a str>,
    pub(crate) session_id: Option<&'a str>,
    pub(crate) payment_id: Option<&'a str>,
    pub(crate) lifecycle: &'static str,
    pub(crate) state: &'static str,
    pub(crate) captured_cents: i64,
    pub(crate) granted_mana: i64,
    pub(crate) grant_sequence: Option<i64>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) completed_at: Option<OffsetDateTime>,
}

/// What one mana of it cost, in millionths of a cent.
pub(super) fn cost_micros(order: &OldOrder) -> i64 {
    let micros = i128::from(order.price_euro_cents).saturating_mul(1_000_000);
    let micros = micros.checked_div(i128::from(order.credits)).unwrap_or(0);
    i64::try_from(micros).unwrap_or(MAX_MANA).clamp(0, MAX_MANA)
}

/// Whether it can be an order here, or why not.
pub(super) fn check(order: &OldOrder) -> Result<(), String> {
    let of = |sentence: &str| Err(format!("purchase {} {sentence}", order.id));
    if Line::<1, 64>::try_from(order.id.clone()).is_err() {
        return of("has an id that no order can have here");
    }
    if Amount::try_from(order.credits).is_err() || Amount::try_from(order.price_euro_cents).is_err() {
        return of("is of no mana or for no money, and is left out; its mana is in the history");
    }
    if !matches!(
        order.status.as_str(),
        "pending" | "completed" | "refunded" | "failed" | "cancelled" | "canceled"
    ) {
        return of("has a state that is not known here");
    }
    Ok(())
}

/// As it will be, with the grant that was given for it.
pub(super) fn brought<'a>(
    order: &'a OldOrder,
    sales: &Sales,
    livemode: bool,
    grant: Option<i64>,
    now: OffsetDateTime,
) -> Option<BroughtOrder<'a>> {
    let (package_id, package_version) = sales.find(order)?;
    let created_at = order.created_at.unwrap_or(now).min(now);
    let (lifecycle, state) = match order.status.as_str() {
        "completed" | "refunded" => ("complete", "paid"),
        "failed" => ("failed", "failed"),
        "cancelled" | "canceled" => ("expired", "expired"),
        _ => ("open", "unpaid"),
    };
    let is_paid = grant.is_some();
    Some(BroughtOrder {
        id: &order.id,
        package_id,
        package_version,
        credits: order.credits,
        price_cents: order.price_euro_cents,
        livemode,
        customer_id: order.stripe_customer_id.as_deref(),
        session_id: order.session_id(),
        payment_id: order.stripe_payment_intent_id.as_deref().filter(|id| id.starts_with("pi_")),
        lifecycle,
        state,
        captured_cents: if is_paid { order.price_euro_cents } else { 0 },
        granted_mana: if is_paid { order.credits } else { 0 },
        grant_sequence: grant,
        created_at,
        completed_at: is_paid.then_some(order.completed_at.unwrap_or(created_at).min(now)),
    })
}
