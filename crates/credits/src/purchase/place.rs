//! What a purchase and a payment link have in common: an order, and a till for it at Stripe.

use super::Payments;
use super::model::{OrderOrigin, PaymentError};
use super::store::{self, NewOrder, PlacedRow, SessionColumns};
use crate::idempotency::IdempotencyKey;
use crate::package;
use crate::package::model::Currency;
use crate::stripe::object::CheckoutSession;
use crate::stripe::{Stripe, StripeError};
use mana_kernel::id::new_uuid;
use mana_kernel::secret::sha256;
use mana_kernel::{Line, UserId};
use mana_platform::Settings;
use mana_platform::config::StripeTax;
use mana_platform::http::RedirectTargets;
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use url::Url;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{RefOr, schema};

/// Orders of a user that may wait to be paid at once.
const MAX_OPEN: i64 = 50;
/// Characters of a URL.
const MAX_URL: usize = 2048;
/// A till closes after so long by itself.
const TILL_IS_OPEN: Duration = Duration::days(1);

/// Where the browser goes after the till.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ReturnUrl(
    /// As given: Stripe fills `{CHECKOUT_SESSION_ID}` in.
    String,
);

impl TryFrom<String> for ReturnUrl {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let is_url = Url::parse(&text).is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none()
        });
        if is_url && text.len() <= MAX_URL {
            Ok(Self(text))
        } else {
            Err("must be an http or https URL of at most 2048 characters")
        }
    }
}

impl From<ReturnUrl> for String {
    fn from(url: ReturnUrl) -> Self {
        url.0
    }
}

impl utoipa::PartialSchema for ReturnUrl {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(schema::SchemaType::Type(Type::String))
            .format(Some(SchemaFormat::Custom("uri".to_owned())))
            .min_length(Some(1))
            .max_length(Some(MAX_URL))
            .into()
    }
}
impl ToSchema for ReturnUrl {}

/// Where browsers may be sent after the till: where any redirect may lead to.
#[derive(Debug, Clone)]
pub struct ReturnUrls {
    targets: RedirectTargets,
    own: String,
}

impl ReturnUrls {
    /// As the settings say.
    pub fn new(settings: &Settings) -> Self {
        Self {
            targets: RedirectTargets::new(settings),
            own: settings.public_url().trim_end_matches('/').to_owned(),
        }
    }

    pub(crate) fn choose(
        &self,
        wanted: Option<&ReturnUrl>,
        state: &str,
        order: &str,
    ) -> Result<String, PaymentError> {
        match wanted {
            None => Ok(format!("{}/checkout/done?state={state}&purchase={order}", self.own)),
            Some(wanted) if self.targets.find(&wanted.0).is_some() => Ok(wanted.0.clone()),
            Some(_) => Err(PaymentError::ForeignUrl),
        }
    }
}

/// How the till is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum UiMode {
    /// On a page of Stripe's, at `checkoutUrl`.
    Hosted,
    /// Inside the app's own page, by `clientSecret`.
    Embedded,
}

/// What is bought.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(json!({"packageId": "small"})))]
pub(super) struct PurchaseRequest {
    /// Which package.
    package_id: Line<1, 64>,
    /// Where the browser goes after paying; a page of this service if absent. Of an origin of the apps.
    success_url: Option<ReturnUrl>,
    /// Where it goes without paying.
    cancel_url: Option<ReturnUrl>,
    /// `eur` if absent; else one of the package's `prices`.
    currency: Option<Currency>,
    /// `hosted` if absent; a payment link is nothing else.
    ui_mode: Option<UiMode>,
    /// Name of this request, as the `Idempotency-Key` header: repeated under it, it is one purchase.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) idempotency_key: Option<IdempotencyKey>,
}

impl PurchaseRequest {
    /// Whether the till is to stand inside the app's own page.
    pub(super) fn is_embedded(&self) -> bool {
        self.ui_mode == Some(UiMode::Embedded)
    }
}

/// A till for a package, for somebody who is asked to pay in person: one under the key.
pub(crate) async fn till_for(
    payments: &Payments,
    user: &UserId,
    package: &str,
    currency: &str,
    key: &IdempotencyKey,
) -> Result<PlacedRow, PaymentError> {
    let request = PurchaseRequest {
        package_id: Line::try_from(package.to_owned()).map_err(|_| PaymentError::NoSuchPackage)?,
        success_url: None,
        cancel_url: None,
        currency: Some(Currency::try_from(currency.to_owned()).map_err(|_| PaymentError::NoSuchPrice)?),
        ui_mode: None,
        idempotency_key: None,
    };
    place(payments, user, &request, Some(key)).await
}

/// Makes the order and its till, or finds those that were made under the key.
pub(super) async fn place(
    payments: &Payments,
    user: &UserId,
    request: &PurchaseRequest,
    key: Option<&IdempotencyKey>,
) -> Result<PlacedRow, PaymentError> {
    let stripe = payments.stripe()?;
    let books = &payments.books;
    let digest = sha256(serde_json::to_string(request).unwrap_or_default().as_bytes());
    let order = order(payments, stripe, user, request, key, &digest).await?;
    if order.request_digest.as_deref() != Some(&digest[..]) {
        return Err(PaymentError::KeyReused);
    }
    if order.session_id.is_some() {
        return Ok(order);
    }
    let customer = customer(payments, stripe, user).await?;
    let (customer, session) = match open_till(payments, stripe, request, &order, &customer).await {
        Err(PaymentError::Stripe(error)) if error.misses("customer") => {
            let customer = another_customer(payments, stripe, user, &customer).await?;
            // The refusal has used the attempt up.
            let order = PlacedRow { attempt: order.attempt.saturating_add(1), ..order.clone() };
            let session = open_till(payments, stripe, request, &order, &customer).await?;
            (customer, session)
        }
        opened => (customer, opened?),
    };
    let columns = SessionColumns {
        customer_id: &customer,
        session_id: &session.id,
        checkout_url: session.url.as_deref(),
        client_secret: session.client_secret.as_deref(),
        expires_at: session.expires_at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()),
    };
    let mut transaction = books.database.begin().await?;
    store::update_session(&mut transaction, &order.id, &columns, books.clock.now()).await?;
    let placed = store::find_placed(&mut transaction, user, Some(&order.id), None).await?;
    transaction.commit().await?;
    placed.ok_or(PaymentError::NoSuchPurchase)
}

/// The order: that of the key, or a new one.
async fn order(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
    request: &PurchaseRequest,
    key: Option<&IdempotencyKey>,
    digest: &[u8],
) -> Result<PlacedRow, PaymentError> {
    let books = &payments.books;
    let (now, key) = (books.clock.now(), key.map(Line::as_str));
    let mut transaction = books.database.begin().await?;
    if key.is_some()
        && let Some(known) = store::find_placed(&mut transaction, user, None, key).await?
    {
        return Ok(known);
    }
    let package = package::store::find_active(&mut transaction, request.package_id.as_str()).await?;
    let package = package.ok_or(PaymentError::NoSuchPackage)?;
    let currency = request.currency.clone().unwrap_or_else(Currency::euro);
    let price_cents = package.price_in(&currency).ok_or(PaymentError::NoSuchPrice)?;
    for url in [&request.success_url, &request.cancel_url] {
        payments.return_urls.choose(url.as_ref(), "paid", "")?;
    }
    if store::count_open(&mut transaction, user, now.saturating_sub(TILL_IS_OPEN)).await? >= MAX_OPEN {
        return Err(PaymentError::TooManyOpen);
    }
    let id = new_uuid(&*books.clock, &*books.rng).to_string();
    let new = NewOrder {
        id: &id,
        user,
        package_id: &package.id,
        package_version: package.version,
        credits: package.credits,
        price_euro_cents: package.price_euro_cents,
        currency: currency.as_str(),
        price_cents,
        is_taxed: payments.tax != StripeTax::Off,
        origin: OrderOrigin::Person,
        livemode: stripe.is_live(),
        idempotency_key: key,
        request_digest: digest,
        now,
    };
    let is_new = store::insert_order(&mut transaction, &new).await?;
    // Another request under the same key was faster.
    let (by_id, by_key) = if is_new { (Some(id.as_str()), None) } else { (None, key) };
    let placed = store::find_placed(&mut transaction, user, by_id, by_key).await?;
    transaction.commit().await?;
    placed.ok_or(PaymentError::NoSuchPurchase)
}

/// Who the user is at Stripe. Nothing but our id is told: whoever pays tells the rest at the till.
pub(crate) async fn customer(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
) -> Result<String, PaymentError> {
    let books = &payments.books;
    let known = store::find_customer(&mut *books.database.acquire().await?, user, stripe.is_live()).await?;
    if let Some(known) = known {
        return Ok(known);
    }
    let form = vec![("metadata[user_id]".to_owned(), user.to_string())];
    let made = stripe.create_customer(&form, &format!("customer-{user}")).await?;
    let mut transaction = books.database.begin().await?;
    store::insert_customer(&mut transaction, user, stripe.is_live(), &made.id, books.clock.now()).await?;
    let kept = store::find_customer(&mut transaction, user, stripe.is_live()).await?;
    transaction.commit().await?;
    Ok(kept.unwrap_or(made.id))
}

/// Who the user is at Stripe from now on: `gone` was deleted there.
pub(crate) async fn another_customer(
    payments: &Payments,
    stripe: &Stripe,
    user: &UserId,
    gone: &str,
) -> Result<String, PaymentError> {
    let books = &payments.books;
    tracing::warn!(customer = gone, %user, "a customer was deleted at Stripe and is made anew");
    let form = vec![("metadata[user_id]".to_owned(), user.to_string())];
    let made = stripe.create_customer(&form, &format!("customer-{user}-after-{gone}")).await?;
    let mut transaction = books.database.begin().await?;
    let (live, now) = (stripe.is_live(), books.clock.now());
    store::update_customer(&mut transaction, user, live, (gone, &made.id), now).await?;
    let kept = store::find_customer(&mut transaction, user, live).await?;
    transaction.commit().await?;
    Ok(kept.unwrap_or(made.id))
}

async fn open_till(
    payments: &Payments,
    stripe: &Stripe,
    request: &PurchaseRequest,
    order: &PlacedRow,
    customer: &str,
) -> Result<CheckoutSession, PaymentError> {
    let urls = &payments.return_urls;
    let success = urls.choose(request.success_url.as_ref(), "paid", &order.id)?;
    let cancel = urls.choose(request.cancel_url.as_ref(), "cancelled", &order.id)?;
    let mut form = vec![
        ("mode", "payment".to_owned()),
        ("client_reference_id", order.id.clone()),
        ("metadata[order_id]", order.id.clone()),
        ("payment_intent_data[metadata][order_id]", order.id.clone()),
        ("customer", customer.to_owned()),
        ("line_items[0][quantity]", "1".to_owned()),
    ];
    match &order.stripe_price_id {
        Some(price) if order.currency == "eur" => form.push(("line_items[0][price]", price.clone())),
        _ => form.extend([
            ("line_items[0][price_data][currency]", order.currency.clone()),
            ("line_items[0][price_data][unit_amount]", order.price_cents.to_string()),
            ("line_items[0][price_data][product_data][name]", order.package_name.clone()),
        ]),
    }
    let is_kept_price = order.stripe_price_id.is_some() && order.currency == "eur";
    if order.is_taxed {
        form.extend([
            ("automatic_tax[enabled]", "true".to_owned()),
            ("tax_id_collection[enabled]", "true".to_owned()),
            ("customer_update[address]", "auto".to_owned()),
            ("customer_update[name]", "auto".to_owned()),
        ]);
        if !is_kept_price {
            form.push(("line_items[0][price_data][tax_behavior]", payments.tax.behavior().to_owned()));
        }
    }
    if request.is_embedded() {
        form.extend([("ui_mode", "embedded".to_owned()), ("return_url", success)]);
    } else {
        form.extend([("success_url", success), ("cancel_url", cancel)]);
    }
    let form = form.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let key = format!("checkout-{}-{}", order.id, order.attempt);
    match stripe.create_session(&form, &key).await {
        Ok(session) => {
            if session.asks_for(order.is_taxed, order.price_cents, &order.currency) {
                return Ok(session);
            }
            // Nobody is shown the way there; closed, nobody finds it either.
            if let Err(error) = stripe.expire_session(&session.id).await {
                tracing::warn!(order = order.id, session = session.id, %error, "a till with a wrong price stays open");
            }
            next_attempt(payments, order).await?;
            Err(PaymentError::WrongPrice(order.package_id.clone()))
        }
        Err(error) if is_kept_price && is_about_price(&error) => {
            next_attempt(payments, order).await?;
            Err(PaymentError::WrongPrice(order.package_id.clone()))
        }
        // Under the same key Stripe would give the same refusal again, after it was mended too.
        Err(error @ StripeError::Refused { .. }) => {
            next_attempt(payments, order).await?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether Stripe has no such price, or one that can't be sold once.
fn is_about_price(error: &StripeError) -> bool {
    matches!(error, StripeError::Refused { parameter, .. } if parameter.starts_with("line_items"))
}

async fn next_attempt(payments: &Payments, order: &PlacedRow) -> Result<(), PaymentError> {
    let mut connection = payments.books.database.acquire().await?;
    store::update_attempt(&mut connection, &order.id, order.attempt).await?;
    Ok(connection.finish().await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_returns_to_the_family_only() {
        let mut settings = Settings::defaults().unwrap();
        settings.base_url = Some("https://auth.mana.how/".parse().unwrap());
        settings.cors_origins =
            vec!["https://app.example".parse().unwrap(), "http://localhost:3000".parse().unwrap()];
        settings.frontend_url = Some("https://www.example.org/start".parse().unwrap());
        settings.cookie_domain = Some(".mana.how".parse().unwrap());
        let urls = ReturnUrls::new(&settings);
        let chosen = |text: &str| {
            let wanted = ReturnUrl::try_from(text.to_owned()).ok()?;
            urls.choose(Some(&wanted), "paid", "o").ok()
        };
        for good in [
            "https://app.example/thanks?session={CHECKOUT_SESSION_ID}",
            "http://localhost:3000/",
            "https://www.example.org/bought",
            "https://chat.mana.how/x",
            "https://mana.how",
            "https://auth.mana.how/y",
        ] {
            assert_eq!(chosen(good).as_deref(), Some(good));
        }
        for foreign in [
            "https://evil.example/",
            "https://app.example.evil.example/",
            "https://app.example@evil.example/",
            "https://app.example\\@evil.example/",
            "http://chat.mana.how/",
            "https://chat.mana.how:8443/",
            "https://evilmana.how/",
            "https://mana.how.evil.example/",
            "http://localhost:3001/",
            "javascript:alert(1)",
            "//evil.example",
            "https://user:pass@app.example/",
        ] {
            assert_eq!(chosen(foreign), None, "{foreign}");
        }
        assert_eq!(
            urls.choose(None, "paid", "o").unwrap(),
            "https://auth.mana.how/checkout/done?state=paid&purchase=o"
        );
    }
}
