//! Calls to Stripe's API. A call that writes carries an idempotency key that follows from what it is about, so that
//! doing it again is doing it once.

use super::object::{
    CheckoutSession, Customer, Dispute, Event, FraudWarning, List, Listed, Named, PaymentIntent, Refund,
};
use mana_platform::outbound::client_builder;
use mana_platform::telemetry::spans;
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;
use tracing::Instrument as _;
use url::Url;

/// The shapes that [`super::object`] knows are those of this version.
const API_VERSION: &str = "2024-06-20";
/// Answers are small; whatever is longer is none of Stripe's.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// How often a call is made that fails in a way that passes.
const TRIES: u32 = 2;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(300);
/// Rows of a page.
const PAGE: usize = 100;

/// A way to Stripe.
#[derive(Debug, Clone)]
pub struct Stripe {
    http: reqwest::Client,
    base: Url,
    key: SecretString,
    is_live: bool,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    /// There is no such thing at Stripe.
    #[error("Stripe knows no such object")]
    NotFound,
    /// Stripe says no, and will say so again.
    #[error("Stripe refuses with {status} {code}, parameter {parameter}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Stripe's code.
        code: String,
        /// What is wrong.
        parameter: String,
    },
    /// It may work later.
    #[error("Stripe can't be asked: {0}")]
    Unavailable(String),
    /// The answer makes no sense.
    #[error("Stripe's answer can't be read: {0}")]
    Unreadable(String),
}

impl StripeError {
    /// Whether what this parameter of the call names is not there (any more).
    pub(crate) fn misses(&self, parameter: &str) -> bool {
        matches!(self, Self::Refused { code, parameter: named, .. } if code == "resource_missing" && named == parameter)
    }

    /// Whether it is the key that is refused, and not what is asked for: an operator can help that.
    pub(crate) fn is_about_the_key(&self) -> bool {
        matches!(self, Self::Refused { status: 401 | 403, .. })
    }
}

/// The way to Stripe can't be built.
#[derive(Debug, thiserror::Error)]
#[error("the client of Stripe can't be built: {0}")]
pub struct InvalidStripe(String);

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorObject,
}

#[derive(Deserialize)]
struct ErrorObject {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    param: Option<String>,
    #[serde(default)]
    r#type: Option<String>,
}

/// Fields of a form, in Stripe's notation.
pub type Form = Vec<(String, String)>;

/// A list, page by page: what somebody has filled it with is never in memory as a whole.
#[derive(Debug)]
pub struct Pages<'a, T> {
    stripe: &'a Stripe,
    path: &'static str,
    filter: (&'static str, String),
    /// Where the next page begins; none when there is none.
    next: Option<Beginning>,
    rows: PhantomData<T>,
}

/// Where a page begins.
#[derive(Debug)]
enum Beginning {
    Start,
    After(String),
}

impl<'a, T: DeserializeOwned + Listed> Pages<'a, T> {
    fn new(stripe: &'a Stripe, path: &'static str, filter: (&'static str, String)) -> Self {
        Self { stripe, path, filter, next: Some(Beginning::Start), rows: PhantomData }
    }

    /// The next page; none after the last.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn next(&mut self) -> Result<Option<Vec<T>>, StripeError> {
        let Some(next) = &self.next else { return Ok(None) };
        let limit = PAGE.to_string();
        let mut parameters = vec![(self.filter.0, self.filter.1.as_str()), ("limit", &limit)];
        if let Beginning::After(last) = next {
            parameters.push(("starting_after", last));
        }
        let List { data, has_more }: List<T> = self.stripe.get(self.path, &parameters).await?;
        self.next = data.last().filter(|_| has_more).map(|row| Beginning::After(row.id().to_owned()));
        Ok(Some(data))
    }

    /// All of a list that is short by its nature.
    async fn all(mut self) -> Result<Vec<T>, StripeError> {
        let mut all = Vec::new();
        while let Some(page) = self.next().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

/// Every way that a call can go.
pub(crate) fn count_from_zero() {
    for method in [Method::GET, Method::POST] {
        for outcome in ["done", "refused", "unauthorized", "unavailable"] {
            metrics::counter!("stripe_calls_total", "method" => method.to_string(), "outcome" => outcome)
                .increment(0);
        }
    }
}

impl Stripe {
    /// A way to the Stripe at `base` with a secret key.
    ///
    /// # Errors
    /// When TLS can't be set up.
    pub fn new(base: Url, key: SecretString, time_limit: Duration) -> Result<Self, InvalidStripe> {
        let http = client_builder()
            .map_err(|error| InvalidStripe(error.to_string()))?
            .timeout(time_limit)
            .connect_timeout(time_limit)
            .user_agent(concat!("mana-core-auth/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| InvalidStripe(error.to_string()))?;
        let is_live = ["sk_live_", "rk_live_"].iter().any(|prefix| key.expose_secret().starts_with(prefix));
        Ok(Self { http, base, key, is_live })
    }

    /// Whether the key moves real money.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Makes a checkout session.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn create_session(&self, form: &Form, key: &str) -> Result<CheckoutSession, StripeError> {
        self.post("/v1/checkout/sessions", form, key).await
    }

    /// Closes an open session: nobody can pay or save a card there any more.
    ///
    /// # Errors
    /// As Stripe says; that of one that is not open is [`StripeError::Refused`].
    pub async fn expire_session(&self, id: &str) -> Result<CheckoutSession, StripeError> {
        self.post(&format!("/v1/checkout/sessions/{id}/expire"), &Form::new(), &format!("expire-{id}")).await
    }

    /// A session with its payment and that one's charge.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn find_session(&self, id: &str) -> Result<CheckoutSession, StripeError> {
        self.get(&format!("/v1/checkout/sessions/{id}"), &[("expand[]", "payment_intent")]).await
    }

    /// A payment.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn find_payment(&self, id: &str) -> Result<PaymentIntent, StripeError> {
        self.get(&format!("/v1/payment_intents/{id}"), &[]).await
    }

    /// A session with the permission to charge a card later that it ends in.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn find_setup(&self, session: &str) -> Result<CheckoutSession, StripeError> {
        self.get(&format!("/v1/checkout/sessions/{session}"), &[("expand[]", "setup_intent")]).await
    }

    /// Makes a payment, which charges nothing until it is confirmed.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn create_payment(&self, form: &Form, key: &str) -> Result<PaymentIntent, StripeError> {
        self.post("/v1/payment_intents", form, key).await
    }

    /// Has a payment charged.
    ///
    /// # Errors
    /// As Stripe says: [`StripeError::Refused`] with the status 402 is the card's word.
    pub async fn confirm_payment(
        &self,
        id: &str,
        form: &Form,
        key: &str,
    ) -> Result<PaymentIntent, StripeError> {
        self.post(&format!("/v1/payment_intents/{id}/confirm"), form, key).await
    }

    /// Ends a payment that has not been charged, for good.
    ///
    /// # Errors
    /// As Stripe says; that of one that is charged is [`StripeError::Refused`].
    pub async fn cancel_payment(&self, id: &str, key: &str) -> Result<PaymentIntent, StripeError> {
        self.post(&format!("/v1/payment_intents/{id}/cancel"), &Form::new(), key).await
    }

    /// Forgets a saved card.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn detach_payment_method(&self, id: &str, key: &str) -> Result<Named, StripeError> {
        self.post(&format!("/v1/payment_methods/{id}/detach"), &Form::new(), key).await
    }

    /// Makes a customer.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn create_customer(&self, form: &Form, key: &str) -> Result<Customer, StripeError> {
        self.post("/v1/customers", form, key).await
    }

    /// Gives money back.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn create_refund(&self, form: &Form, key: &str) -> Result<Refund, StripeError> {
        self.post("/v1/refunds", form, key).await
    }

    /// The refunds of a payment.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn list_refunds(&self, payment: &str) -> Result<Vec<Refund>, StripeError> {
        Pages::new(self, "/v1/refunds", ("payment_intent", payment.to_owned())).all().await
    }

    /// The disputes of a payment.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn list_disputes(&self, payment: &str) -> Result<Vec<Dispute>, StripeError> {
        Pages::new(self, "/v1/disputes", ("payment_intent", payment.to_owned())).all().await
    }

    /// The early fraud warnings of a payment.
    ///
    /// # Errors
    /// As Stripe says.
    pub async fn list_fraud_warnings(&self, payment: &str) -> Result<Vec<FraudWarning>, StripeError> {
        Pages::new(self, "/v1/radar/early_fraud_warnings", ("payment_intent", payment.to_owned())).all().await
    }

    /// Sessions made since a time (Unix seconds).
    pub fn list_sessions_since(&self, since: i64) -> Pages<'_, CheckoutSession> {
        Pages::new(self, "/v1/checkout/sessions", ("created[gte]", since.to_string()))
    }

    /// Payments made since a time.
    pub fn list_payments_since(&self, since: i64) -> Pages<'_, PaymentIntent> {
        Pages::new(self, "/v1/payment_intents", ("created[gte]", since.to_string()))
    }

    /// Refunds made since a time.
    pub fn list_refunds_since(&self, since: i64) -> Pages<'_, Refund> {
        Pages::new(self, "/v1/refunds", ("created[gte]", since.to_string()))
    }

    /// Disputes opened since a time.
    pub fn list_disputes_since(&self, since: i64) -> Pages<'_, Dispute> {
        Pages::new(self, "/v1/disputes", ("created[gte]", since.to_string()))
    }

    /// Events since a time. Stripe keeps them for 30 days.
    pub fn list_events_since(&self, since: i64) -> Pages<'_, Event> {
        Pages::new(self, "/v1/events", ("created[gte]", since.to_string()))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, StripeError> {
        let mut url = self.url(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.call(Method::GET, &url, None, None).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, form: &Form, key: &str) -> Result<T, StripeError> {
        let url = self.url(path)?;
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.call(Method::POST, &url, Some(&body), Some(key)).await
    }

    fn url(&self, path: &str) -> Result<Url, StripeError> {
        self.base.join(path).map_err(|error| StripeError::Unreadable(error.to_string()))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &Url,
        body: Option<&str>,
        key: Option<&str>,
    ) -> Result<T, StripeError> {
        let mut tries = 1;
        loop {
            let traced = spans::call("stripe", Some(method.as_str()), url.host_str().unwrap_or_default());
            let outcome = self.call_once(method.clone(), url, body, key).instrument(traced.clone()).await;
            spans::call_ended(&traced, &outcome);
            let name = match &outcome {
                Ok(_) => "done",
                Err(StripeError::Unavailable(_)) => "unavailable",
                Err(error) if error.is_about_the_key() => "unauthorized",
                Err(_) => "refused",
            };
            metrics::counter!("stripe_calls_total", "method" => method.to_string(), "outcome" => name)
                .increment(1);
            match outcome {
                Err(StripeError::Unavailable(_)) if tries < TRIES => {
                    tries = tries.saturating_add(1);
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn call_once<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &Url,
        body: Option<&str>,
        key: Option<&str>,
    ) -> Result<T, StripeError> {
        let mut request = self
            .http
            .request(method, url.clone())
            .bearer_auth(self.key.expose_secret())
            .header("Stripe-Version", API_VERSION);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request =
                request.header("Content-Type", "application/x-www-form-urlencoded").body(body.to_owned());
        }
        // Without its URL: that may name a customer.
        let away = |error: reqwest::Error| StripeError::Unavailable(error.without_url().to_string());
        let mut response = request.send().await.map_err(away)?;
        let status = response.status();
        spans::call_answered(status);
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(StripeError::Unreadable("it is too long".to_owned()));
            }
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|error| StripeError::Unreadable(error.to_string()));
        }
        Err(refusal(status, &bytes))
    }
}

/// Stripe's words are for its customer and may repeat what was sent; code and parameter are kept.
fn refusal(status: StatusCode, bytes: &[u8]) -> StripeError {
    let error = serde_json::from_slice::<ErrorBody>(bytes).map(|body| body.error).ok();
    let (code, parameter) = error
        .map(|error| (error.code.or(error.r#type).unwrap_or_default(), error.param.unwrap_or_default()))
        .unwrap_or_default();
    match status {
        StatusCode::NOT_FOUND => StripeError::NotFound,
        // A conflict is the same key in flight: what it came to is there a moment later.
        StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            StripeError::Unavailable(format!("{status} {code}"))
        }
        status if status.is_server_error() => StripeError::Unavailable(format!("{status} {code}")),
        status => StripeError::Refused { status: status.as_u16(), code, parameter },
    }
}
