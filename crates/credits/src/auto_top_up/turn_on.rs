//! `PUT /api/v1/credits/auto-top-up`: turns it on, or changes it.

use super::model::{AutoTopUp, Status};
use super::show::{AutoTopUpResponse, read};
use super::store::{self, Agreement};
use super::{TopUpNews, charge};
use crate::CreditsState;
use crate::package;
use crate::package::model::{Cents, Currency};
use crate::purchase::place::{ReturnUrl, another_customer, customer};
use crate::purchase::{PaymentError, Payments};
use crate::stripe::object::CheckoutSession;
use crate::stripe::{Stripe, StripeError};
use axum::Json;
use axum::extract::State;
use mana_kernel::id::new_uuid;
use mana_kernel::{Amount, Line, UserId};
use mana_platform::DbError;
use mana_platform::config::StripeTax;
use mana_platform::http::{ApiError, FreshCaller, Language, ProblemBody, Valid};
use serde::Deserialize;
use time::Duration;
use utoipa::ToSchema;

/// When a till that a card is saved at is looked at first, if no delivery comes.
const FIRST_LOOK: Duration = Duration::seconds(30);

/// A consent, which is given or not asked for.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "bool")]
pub(crate) struct Consent;

impl TryFrom<bool> for Consent {
    type Error = &'static str;

    fn try_from(is_given: bool) -> Result<Self, &'static str> {
        if is_given { Ok(Self) } else { Err("must be true: nobody is charged without having agreed to it") }
    }
}

/// What is bought, when, and how much of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AutoTopUpRequest {
    /// Mana is bought when less than this can be spent after a spend.
    threshold_mana: Amount,
    /// Which package; it must hold the threshold at least.
    package_id: Line<1, 64>,
    /// `eur` if absent; else one of the package's `prices`.
    currency: Option<Currency>,
    /// What a month may cost at most, in the smallest unit of the currency. Months are those of the installation's time zone.
    monthly_cap_cents: Cents,
    /// That the person has agreed to have the saved card charged without being asked again, up to the cap.
    #[expect(dead_code, reason = "it is there or the request is refused")]
    #[schema(value_type = bool)]
    consent: Consent,
    /// Save another card than the one that is saved.
    replace_payment_method: Option<bool>,
    /// Where the browser goes when the card is saved; a page of this service if absent. Of an origin of the apps.
    success_url: Option<ReturnUrl>,
    /// Where it goes without a card.
    cancel_url: Option<ReturnUrl>,
}

/// What the request asks for, as the package has it.
struct Wanted {
    currency: Currency,
    credits: i64,
    price_cents: i64,
}

/// Turns the auto top-up on
///
/// Without a saved card, `status` is `setup`: send the browser to `setupUrl`. A change counts as a new consent and ends a pause. Nothing is
/// bought before the balance changes. Because it lets a card be charged, it asks for a fresh proof of who the caller is.
#[utoipa::path(
    put, path = "/api/v1/credits/auto-top-up", tag = "credits",
    request_body = AutoTopUpRequest,
    responses(
        (status = 200, description = "It is on, or waits for a card", body = AutoTopUpResponse),
        (status = 403, description = "The last proof of who the caller is is too old", body = ProblemBody),
        (status = 404, description = "No such package", body = ProblemBody),
        (status = 409, description = "A top-up is being charged, or there is none where tax is calculated", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn turn_on(
    State(credits): State<CreditsState>,
    FreshCaller(caller): FreshCaller,
    language: Language,
    Valid(request): Valid<AutoTopUpRequest>,
) -> Result<Json<AutoTopUpResponse>, ApiError> {
    let payments = &credits.payments;
    let (stripe, user) = (payments.stripe()?, &caller.user_id);
    let wanted = examine(payments, &request).await?;
    let known = settle_known(payments, stripe, user).await?;
    let replaces = request.replace_payment_method == Some(true);
    let customer = customer(payments, stripe, user).await?;
    let ended_order = known.as_ref().and_then(|known| known.order_id.clone());
    let old_card = known.as_ref().and_then(|known| known.payment_method_id.clone());
    let card =
        known.filter(|known| !replaces && known.status != Status::Off && known.customer_id == customer);
    let card = card.and_then(|known| known.payment_method_id);
    let (customer, session) = match card {
        Some(_) => (customer, None),
        None => {
            let (customer, session) = open_till(payments, stripe, user, &request, customer).await?;
            (customer, Some(session))
        }
    };
    let now = credits.clock.now();
    let agreement = Agreement {
        threshold_mana: request.threshold_mana.get(),
        package_id: request.package_id.as_str(),
        currency: wanted.currency.as_str(),
        credits: wanted.credits,
        price_cents: wanted.price_cents,
        monthly_cap_cents: request.monthly_cap_cents.get(),
        language,
        livemode: stripe.is_live(),
        customer_id: &customer,
        payment_method_id: card.as_deref(),
        setup: session.as_ref().map(|session| (session.id.as_str(), session.url.as_deref())),
        ended_order: ended_order.as_deref(),
        next_look_at: session.as_ref().map(|_| now.saturating_add(FIRST_LOOK)),
        now,
    };
    let mut transaction = credits.database.begin().await?;
    if !store::upsert_agreement(&mut transaction, user, &agreement).await? {
        return Err(PaymentError::TopUpUnderWay.into());
    }
    if card.is_some() {
        let told = credits.payers.on_top_up_news(&mut transaction, user, TopUpNews::TurnedOn);
        told.await.map_err(PaymentError::Port)?;
    }
    let shown = read(&mut transaction, user, &credits.policy.daily_zone, now).await?;
    transaction.commit().await.map_err(DbError::from)?;
    if let Some(old) = old_card.filter(|old| card.as_ref() != Some(old)) {
        // It charges nothing any more, whether or not Stripe forgets it.
        if let Err(error) = stripe.detach_payment_method(&old, &format!("forget-{old}")).await {
            tracing::warn!(%user, %error, "a card that is replaced stays saved at Stripe");
        }
    }
    Ok(Json(shown))
}

/// Whether such a top-up can be.
async fn examine(payments: &Payments, request: &AutoTopUpRequest) -> Result<Wanted, PaymentError> {
    if payments.tax != StripeTax::Off {
        return Err(PaymentError::TaxedTopUp);
    }
    for url in [&request.success_url, &request.cancel_url] {
        payments.return_urls.choose(url.as_ref(), "saved", "")?;
    }
    let mut connection = payments.books.database.acquire().await?;
    let package = package::store::find_active(&mut connection, request.package_id.as_str()).await?;
    let package = package.ok_or(PaymentError::NoSuchPackage)?;
    let currency = request.currency.clone().unwrap_or_else(Currency::euro);
    let price_cents = package.price_in(&currency).ok_or(PaymentError::NoSuchPrice)?;
    if package.credits < request.threshold_mana.get() {
        return Err(PaymentError::BelowThreshold);
    }
    if request.monthly_cap_cents.get() < price_cents {
        return Err(PaymentError::CapBelowPrice);
    }
    Ok(Wanted { currency, credits: package.credits, price_cents })
}

/// What is there already. An order of it that waits for its next try is ended, so that it is not bought by other terms.
async fn settle_known(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
) -> Result<Option<AutoTopUp>, PaymentError> {
    let mut transaction = payments.books.database.begin().await?;
    let known = store::lock_auto_top_up(&mut transaction, user, stripe.is_live()).await?;
    drop(transaction);
    if let Some(known) = known.as_ref().filter(|known| known.order_id.is_some()) {
        charge::cancel(payments, stripe, known).await?;
    }
    Ok(known)
}

/// A till that saves a card and charges nothing.
async fn open_till(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
    request: &AutoTopUpRequest,
    customer: String,
) -> Result<(String, CheckoutSession), PaymentError> {
    match save_card(payments, stripe, user, request, &customer).await {
        Err(PaymentError::Stripe(error)) if error.misses("customer") => {
            let customer = another_customer(payments, stripe, user, &customer).await?;
            let session = save_card(payments, stripe, user, request, &customer).await?;
            Ok((customer, session))
        }
        opened => Ok((customer, opened?)),
    }
}

async fn save_card(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
    request: &AutoTopUpRequest,
    customer: &str,
) -> Result<CheckoutSession, PaymentError> {
    let urls = &payments.return_urls;
    let form = [
        ("mode", "setup".to_owned()),
        ("customer", customer.to_owned()),
        ("payment_method_types[0]", "card".to_owned()),
        ("metadata[auto_top_up]", user.to_string()),
        ("setup_intent_data[metadata][auto_top_up]", user.to_string()),
        ("success_url", urls.choose(request.success_url.as_ref(), "saved", "")?),
        ("cancel_url", urls.choose(request.cancel_url.as_ref(), "cancelled", "")?),
    ];
    let form = form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let key = format!("card-{}", new_uuid(&*payments.books.clock, &*payments.books.rng));
    stripe.create_session(&form, &key).await.map_err(|error: StripeError| error.into())
}
