//! Opens the one order of a crossing.

use super::model::{AutoTopUp, PauseReason, objection};
use super::{Payers, TopUpNews, store};
use crate::package;
use crate::package::model::{Currency, PackageResponse};
use crate::purchase::model::OrderOrigin;
use crate::purchase::store as purchases;
use crate::purchase::{PaymentError, Payments};
use crate::stripe::Stripe;
use mana_kernel::UserId;
use mana_kernel::id::new_uuid;
use mana_platform::DbError;
use mana_platform::config::StripeTax;
use sqlx::PgConnection;
use time::OffsetDateTime;

/// Users of a page.
const PAGE: i64 = 500;

/// Opens an order for each wallet that has fallen below its threshold, as the ledger has noted.
pub(super) async fn open_fallen(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
) -> Result<(), PaymentError> {
    let mut last = String::new();
    loop {
        let now = payments.books.clock.now();
        let mut connection = payments.books.database.acquire().await?;
        let fallen = store::list_fallen(&mut connection, stripe.is_live(), now, &last, PAGE).await?;
        drop(connection);
        let Some(newest) = fallen.last() else { return Ok(()) };
        last.clone_from(newest);
        for user in fallen {
            let user = user.parse().map_err(|_| DbError::unreadable("credits.auto_top_ups"))?;
            if let Err(error) = open(payments, stripe, payers, &user).await {
                tracing::warn!(%user, %error, "a top-up can't be opened and is tried again");
            }
        }
    }
}

/// Opens an order for a crossing, unless somebody else has, or something stands against it. Whoever has the row decides.
async fn open(
    payments: &Payments,
    stripe: &Stripe,
    payers: &dyn Payers,
    user: &UserId,
) -> Result<(), PaymentError> {
    let books = &payments.books;
    let now = books.clock.now();
    let mut transaction = books.database.begin().await?;
    let wallet = store::lock_wallet(&mut transaction, user).await?;
    let found = store::lock_auto_top_up(&mut transaction, user, stripe.is_live()).await?;
    let crossed = found.zip(wallet).filter(|(top_up, wallet)| top_up.is_crossed(wallet, now));
    let Some((top_up, _)) = crossed else {
        store::update_seen(&mut transaction, user, now).await?;
        return Ok(transaction.commit().await?);
    };
    let package = match find_objection(payments, &mut transaction, payers, &top_up).await? {
        Err(reason) => {
            pause(&mut transaction, payers, &top_up, (reason, None), now).await?;
            return Ok(transaction.commit().await?);
        }
        Ok(package) => package,
    };
    let zone = &books.policy.daily_zone;
    let month = purchases::find_month(&mut transaction, user, &top_up.currency, zone, now).await?;
    if month.used_cents.saturating_add(top_up.price_cents) > top_up.monthly_cap_cents {
        store::update_capped(&mut transaction, user, month.ends_at).await?;
        transaction.commit().await?;
        count("capped");
        return Ok(());
    }
    let id = new_uuid(&*books.clock, &*books.rng).to_string();
    let order = purchases::NewOrder {
        id: &id,
        user,
        package_id: &package.id,
        package_version: package.version,
        credits: package.credits,
        price_euro_cents: package.price_euro_cents,
        currency: &top_up.currency,
        price_cents: top_up.price_cents,
        is_taxed: false,
        origin: OrderOrigin::AutoTopUp,
        livemode: stripe.is_live(),
        idempotency_key: None,
        request_digest: &[],
        now,
    };
    purchases::insert_order(&mut transaction, &order).await?;
    if !store::update_order(&mut transaction, user, &id, now).await? {
        return Ok(());
    }
    transaction.commit().await?;
    tracing::info!(order = id, "an auto top-up is due");
    count("opened");
    Ok(())
}

/// The package, if it is still what was agreed to and its buyer may be charged.
pub(super) async fn find_objection(
    payments: &Payments,
    connection: &mut PgConnection,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
) -> Result<Result<PackageResponse, PauseReason>, PaymentError> {
    let user = &top_up.user;
    if payments.tax != StripeTax::Off {
        return Ok(Err(PauseReason::Tax));
    }
    let may_be_charged = payers.may_be_charged(connection, user).await.map_err(PaymentError::Port)?;
    let wallet = store::find_wallet(connection, user).await?;
    let blemishes = purchases::find_blemishes(connection, user, top_up.consented_at).await?;
    if let Some(reason) = objection(wallet.as_ref(), blemishes, may_be_charged) {
        return Ok(Err(reason));
    }
    let Some(package) = package::store::find_active(connection, &top_up.package_id).await? else {
        return Ok(Err(PauseReason::PackageGone));
    };
    let currency = Currency::try_from(top_up.currency.clone());
    let price = currency.ok().and_then(|currency| package.price_in(&currency));
    let is_as_agreed = price == Some(top_up.price_cents) && package.credits == top_up.credits;
    Ok(if is_as_agreed { Ok(package) } else { Err(PauseReason::PackageChanged) })
}

/// Pauses it and tells its owner, in the transaction that has locked it. Its order is one that is yet to be wound up.
pub(super) async fn pause(
    connection: &mut PgConnection,
    payers: &dyn Payers,
    top_up: &AutoTopUp,
    (reason, till): (PauseReason, Option<&str>),
    now: OffsetDateTime,
) -> Result<(), PaymentError> {
    store::update_paused(connection, &top_up.user, reason, top_up.order_id.as_deref(), now).await?;
    let news = TopUpNews::Paused { reason, till, language: top_up.language };
    payers.on_top_up_news(connection, &top_up.user, news).await.map_err(PaymentError::Port)?;
    tracing::warn!(user = %top_up.user, order = top_up.order_id, reason = reason.as_str(), "an auto top-up is paused");
    count("paused");
    Ok(())
}

/// Every way that an order can go.
pub(crate) fn count_from_zero() {
    for outcome in ["opened", "credited", "declined", "capped", "paused"] {
        metrics::counter!("auto_top_ups_total", "outcome" => outcome).increment(0);
    }
}

pub(super) fn count(outcome: &'static str) {
    metrics::counter!("auto_top_ups_total", "outcome" => outcome).increment(1);
}
