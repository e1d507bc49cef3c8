//! `PUT /api/v1/credits/auto-top-up`: turns it on, or changes it.

use super::model::{AutoTopUp, Status};
use super::show::{AutoTopUpResponse, read};
use super::store::{self, Agreement};
use super::work::{LEASE, saved_card};
use super::{TopUpNews, charge};
use crate::CreditsState;
use crate::ledger::error::LedgerError;
use crate::ledger::store::insert_wallets;
use crate::package;
use crate::package::model::{Cents, Currency};
use crate::purchase::place::{ReturnUrl, another_customer, customer};
use crate::purchase::{PaymentError, Payments};
use crate::stripe::object::{CheckoutSession, Expandable};
use crate::stripe::{Stripe, StripeError};
use axum::Json;
use axum::extract::State;
use mana_kernel::id::new_uuid;
use mana_kernel::{Amount, Line, UserId};
use mana_platform::config::StripeTax;
use mana_platform::http::{ApiError, Caller, FreshCaller, Language, ProblemBody, Valid};
use serde::Deserialize;
use time::Duration;
use utoipa::ToSchema;

/// When a till that a card is saved at is looked at first, if no delivery comes.
const FIRST_LOOK: Duration = Duration::seconds(30);
/// Tills that are opened for an owner in a day, after the first.
const MAX_TILLS: i32 = 20;

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
    /// Mana is bought when the wallet changes and less than this can be spent then.
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
/// Without a saved card, `status` is `setup`: send the browser to `setupUrl`, which stays the same for as long as it is open and returns to
/// the same pages. A change counts as a new consent and ends a pause. Nothing is bought before the balance changes. Because it lets a card be
/// charged, it asks for a fresh proof of who the caller is.
#[utoipa::path(
    put, path = "/api/v1/credits/auto-top-up", tag = "credits",
    request_body = AutoTopUpRequest,
    responses(
        (status = 200, description = "It is on, or waits for a card", body = AutoTopUpResponse),
        (status = 403, description = "The last proof of who the caller is is too old", body = ProblemBody),
        (status = 404, description = "No such package", body = ProblemBody),
        (status = 409, description = "A top-up is being charged, too many pages to save a card at were opened today, or there is none where tax is calculated", body = ProblemBody),
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
    let known = find_known(payments, stripe, user).await?;
    let customer = customer(payments, stripe, user).await?;
    let known_till = find_till(stripe, known.as_ref()).await?;
    let card = kept_card(&request, &customer, known.as_ref(), known_till.as_ref());
    let till = match card {
        Some(_) => Till { customer, session: None, is_new: false },
        None => open_till(payments, stripe, user, &request, customer, known_till).await?,
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
        customer_id: &till.customer,
        payment_method_id: card.as_deref(),
        setup: till.session.as_ref().map(|session| (session.id.as_str(), session.url.as_deref())),
        ended_order: None,
        next_look_at: till.session.as_ref().map(|_| now.saturating_add(FIRST_LOOK)),
        now,
    };
    let agreed = conclude(&credits, stripe, &caller, agreement).await;
    if agreed.is_err()
        && let Some(session) = till.session.filter(|_| till.is_new)
        && let Err(error) = stripe.expire_session(&session.id).await
    {
        tracing::warn!(%user, session = session.id, %error, "a till that nobody is sent to stays open");
    }
    let shown = agreed?;
    payments.errands.top_ups.notify_one();
    Ok(Json(shown))
}

/// Ends what waits to be bought by the terms of before, and writes down what was agreed to. Last of all: whatever fails before leaves the terms
/// of before as they are, and the card that was declined its time until the next try.
async fn conclude(
    credits: &CreditsState,
    stripe: &Stripe,
    caller: &Caller,
    agreement: Agreement<'_>,
) -> Result<AutoTopUpResponse, PaymentError> {
    let ended = withdraw(&credits.payments, stripe, &caller.user_id).await?;
    agree(credits, caller, &Agreement { ended_order: ended.as_deref(), ..agreement }).await
}

/// Writes down what was agreed to, by somebody whose session lives until that is there. The wallet is locked before the account, as everywhere,
/// and both before the auto top-up.
async fn agree(
    credits: &CreditsState,
    caller: &Caller,
    agreement: &Agreement<'_>,
) -> Result<AutoTopUpResponse, PaymentError> {
    let user = &caller.user_id;
    let zone = &credits.policy.daily_zone;
    let mut transaction = credits.database.begin().await?;
    insert_wallets(&mut transaction, &[user.to_string()], zone, agreement.now).await?;
    store::lock_wallet(&mut transaction, user).await?;
    let callers = [caller];
    let held = credits.session_guard.hold_live(&mut transaction, &callers);
    if !held.await.map_err(PaymentError::Port)?.contains(&caller.session_id) {
        return Err(LedgerError::SessionEnded.into());
    }
    store::update_threshold(&mut transaction, user, Some(agreement.threshold_mana)).await?;
    if !store::upsert_agreement(&mut transaction, user, agreement).await? {
        return Err(PaymentError::TopUpUnderWay);
    }
    if agreement.payment_method_id.is_some() {
        let told = credits.payers.on_top_up_news(&mut transaction, user, TopUpNews::TurnedOn);
        told.await.map_err(PaymentError::Port)?;
    }
    let shown = read(&mut transaction, user, zone, agreement.now).await?;
    transaction.commit().await?;
    Ok(shown)
}

/// Whether such a top-up can be.
async fn examine(payments: &Payments, request: &AutoTopUpRequest) -> Result<Wanted, PaymentError> {
    if payments.tax != StripeTax::Off {
        return Err(PaymentError::TaxedTopUp);
    }
    return_urls(payments, request)?;
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

/// What is there already.
async fn find_known(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
) -> Result<Option<AutoTopUp>, PaymentError> {
    let mut transaction = payments.books.database.begin().await?;
    Ok(store::lock_auto_top_up(&mut transaction, user, stripe.is_live()).await?)
}

/// Withdraws and ends the order that waits for its next try, so that it is not bought by other terms. Says which it was. Who does not come to
/// the end of this leaves it to the next pass, which ends the order and says nothing of it.
async fn withdraw(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
) -> Result<Option<String>, PaymentError> {
    let books = &payments.books;
    let mut transaction = books.database.begin().await?;
    let known = store::lock_auto_top_up(&mut transaction, user, stripe.is_live()).await?;
    let Some((known, order)) = known.as_ref().and_then(|known| Some((known, known.order_id.clone()?))) else {
        return Ok(None);
    };
    let at = books.clock.now().saturating_add(LEASE);
    store::update_withdrawn(&mut transaction, user, &order, at).await?;
    transaction.commit().await?;
    charge::cancel(payments, stripe, known).await?;
    Ok(Some(order))
}

/// A till that was opened before.
enum KnownTill {
    /// It waits.
    Open(Box<CheckoutSession>),
    /// A card was saved there.
    Saved(String),
}

/// What became of the till that somebody was sent to; nothing of one that is over.
async fn find_till(stripe: &Stripe, known: Option<&AutoTopUp>) -> Result<Option<KnownTill>, PaymentError> {
    let waiting = known.filter(|known| known.status == Status::Setup);
    let Some((known, session)) = waiting.and_then(|known| Some((known, known.setup_session_id.as_ref()?)))
    else {
        return Ok(None);
    };
    match stripe.find_setup(session).await {
        Ok(found) if found.status.as_deref() == Some("open") => Ok(Some(KnownTill::Open(Box::new(found)))),
        Ok(found) => Ok(saved_card(&found, known).map(KnownTill::Saved)),
        Err(StripeError::NotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The card that is charged from now on, if one is saved that may be.
fn kept_card(
    request: &AutoTopUpRequest,
    customer: &str,
    known: Option<&AutoTopUp>,
    till: Option<&KnownTill>,
) -> Option<String> {
    let replaces = request.replace_payment_method == Some(true);
    let known =
        known.filter(|known| !replaces && known.status != Status::Off && known.customer_id == customer)?;
    match till {
        Some(KnownTill::Saved(card)) => Some(card.clone()),
        _ => known.payment_method_id.clone(),
    }
}

/// A till that saves a card and charges nothing, and whose it is. None where there is a card.
struct Till {
    customer: String,
    session: Option<CheckoutSession>,
    is_new: bool,
}

/// The till that is open, if it leads back to where it is to; else another one, but not any number of them.
async fn open_till(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
    request: &AutoTopUpRequest,
    customer: String,
    known_till: Option<KnownTill>,
) -> Result<Till, PaymentError> {
    let (success, cancel) = return_urls(payments, request)?;
    if let Some(KnownTill::Open(session)) = known_till
        && session.customer.as_ref().map(Expandable::id) == Some(&customer)
        && (session.success_url.as_ref(), session.cancel_url.as_ref()) == (Some(&success), Some(&cancel))
    {
        return Ok(Till { customer, session: Some(*session), is_new: false });
    }
    let now = payments.books.clock.now();
    let mut transaction = payments.books.database.begin().await?;
    let a_day_ago = now.saturating_sub(Duration::DAY);
    if !store::update_tills_made(&mut transaction, user, MAX_TILLS, a_day_ago, now).await? {
        return Err(PaymentError::TooManySetups);
    }
    transaction.commit().await?;
    let (customer, session) = match save_card(payments, stripe, user, request, &customer).await {
        Err(PaymentError::Stripe(error)) if error.misses("customer") => {
            let customer = another_customer(payments, stripe, user, &customer).await?;
            let session = save_card(payments, stripe, user, request, &customer).await?;
            (customer, session)
        }
        opened => (customer, opened?),
    };
    Ok(Till { customer, session: Some(session), is_new: true })
}

/// Where the browser goes after the till.
fn return_urls(payments: &Payments, request: &AutoTopUpRequest) -> Result<(String, String), PaymentError> {
    let urls = &payments.return_urls;
    let success = urls.choose(request.success_url.as_ref(), "saved", "")?;
    Ok((success, urls.choose(request.cancel_url.as_ref(), "cancelled", "")?))
}

async fn save_card(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
    request: &AutoTopUpRequest,
    customer: &str,
) -> Result<CheckoutSession, PaymentError> {
    let (success, cancel) = return_urls(payments, request)?;
    let form = [
        ("mode", "setup".to_owned()),
        ("customer", customer.to_owned()),
        ("payment_method_types[0]", "card".to_owned()),
        ("metadata[auto_top_up]", user.to_string()),
        ("setup_intent_data[metadata][auto_top_up]", user.to_string()),
        ("success_url", success),
        ("cancel_url", cancel),
    ];
    let form = form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let key = format!("card-{}", new_uuid(&*payments.books.clock, &*payments.books.rng));
    stripe.create_session(&form, &key).await.map_err(|error: StripeError| error.into())
}
