//! Apps that act for users: which app asks, proven by its key, and what it may do.

use super::caller::{Authenticate, Caller, ClientInfo};
use super::{ApiError, codes};
use crate::rate_limit::AccountLimit;
use axum::extract::{FromRef, FromRequestParts};
use clap::ValueEnum;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};
use mana_kernel::Line;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use utoipa::ToSchema;

/// Carries the key.
pub(crate) static SERVICE_KEY: HeaderName = HeaderName::from_static("x-service-key");
static APP_ID: HeaderName = HeaderName::from_static("x-app-id");

/// One thing that a service key may allow.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema, ValueEnum,
)]
pub enum Scope {
    /// See a user's balance, and holds of the key's app.
    #[serde(rename = "credits:read")]
    #[value(name = "credits:read")]
    CreditsRead,
    /// Charge a user.
    #[serde(rename = "credits:spend")]
    #[value(name = "credits:spend")]
    CreditsSpend,
    /// Give back what a user was charged.
    #[serde(rename = "credits:refund")]
    #[value(name = "credits:refund")]
    CreditsRefund,
    /// Give a user mana.
    #[serde(rename = "credits:grant")]
    #[value(name = "credits:grant")]
    CreditsGrant,
    /// Open sessions for users, by a key of one app.
    #[serde(rename = "sessions:mint")]
    #[value(name = "sessions:mint")]
    SessionsMint,
    /// See what the app's users have used.
    #[serde(rename = "usage:read")]
    #[value(name = "usage:read")]
    UsageRead,
}

impl Scope {
    /// As in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreditsRead => "credits:read",
            Self::CreditsSpend => "credits:spend",
            Self::CreditsRefund => "credits:refund",
            Self::CreditsGrant => "credits:grant",
            Self::SessionsMint => "sessions:mint",
            Self::UsageRead => "usage:read",
        }
    }

    /// From the database. What is unknown allows nothing.
    pub fn from_database(text: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|scope| scope.as_str() == text)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a key allows, each once.
pub type Scopes = BTreeSet<Scope>;

/// Which app a key acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyApp {
    /// This one. `X-App-Id` may repeat it.
    Only(Line<1, 128>),
    /// The one that `X-App-Id` names; without it, the one that the request is about.
    Any {
        /// The one of a request that is about none; without it, such a request is refused.
        otherwise: Option<Line<1, 128>>,
    },
}

/// A key that is good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceKey {
    /// Its id, which is no secret.
    pub id: String,
    /// The app it acts as.
    pub app: KeyApp,
    /// What it allows.
    pub scopes: Scopes,
    /// Requests a minute, if they are limited.
    pub limit_per_minute: Option<u32>,
}

/// Port: finds the key behind a text. Implemented by the accounts.
pub trait AuthenticateService: Send + Sync + std::fmt::Debug {
    /// The key that `secret` is.
    ///
    /// Fails with [`codes::SERVICE_UNAUTHENTICATED`] when it is none, malformed or revoked, and with a code of its own when that
    /// can't be found out: nobody is let in because the database is away.
    fn authenticate_service<'a>(
        &'a self,
        secret: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Arc<ServiceKey>, ApiError>> + Send + 'a>>;
}

/// The app that a request acts as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActingApp {
    /// The key's own: whatever the request is about.
    Own(Line<1, 128>),
    /// The one that `X-App-Id` names: whatever the request is about.
    Named(Line<1, 128>),
    /// The one that the request is about, as its body says or what it names belongs to.
    Open {
        /// The one of a request that is about none.
        otherwise: Option<Line<1, 128>>,
    },
}

/// An app, proven by the service key of this request. A handler that takes one can't be reached without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceCaller {
    /// The key's id.
    pub key_id: String,
    /// The app it acts as.
    pub app: ActingApp,
    /// What it may do.
    pub scopes: Scopes,
}

impl ServiceCaller {
    /// The app that it acts as in a request that is about `app`.
    pub fn app_of<'a>(&'a self, app: &'a str) -> &'a str {
        match &self.app {
            ActingApp::Own(app) | ActingApp::Named(app) => app.as_str(),
            ActingApp::Open { .. } => app,
        }
    }

    /// The app that it acts as in a request that is about none.
    ///
    /// # Errors
    /// When the key is no one app's.
    pub fn app(&self) -> Result<&str, ApiError> {
        match &self.app {
            ActingApp::Own(app) | ActingApp::Named(app) | ActingApp::Open { otherwise: Some(app) } => {
                Ok(app.as_str())
            }
            ActingApp::Open { otherwise: None } => Err(ApiError::new(&codes::SERVICE_APP_MISSING)),
        }
    }

    /// The app that the key belongs to.
    ///
    /// # Errors
    /// When it is no one app's, whatever the request names.
    pub fn own_app(&self) -> Result<&str, ApiError> {
        match &self.app {
            ActingApp::Own(app) => Ok(app.as_str()),
            ActingApp::Named(_) | ActingApp::Open { .. } => Err(ApiError::new(&codes::SERVICE_KEY_UNBOUND)),
        }
    }

    /// Goes on only with a key that allows `scope`.
    ///
    /// # Errors
    /// When it does not; the answer names the scope.
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        Err(ApiError::new(&codes::SERVICE_SCOPE_MISSING)
            .with_detail(format!("The service key lacks the scope {scope}")))
    }
}

impl<S> FromRequestParts<S> for ServiceCaller
where
    S: Send + Sync,
    Arc<dyn AuthenticateService>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let secret = the_one(&parts.headers, &SERVICE_KEY).ok_or_else(|| without_key(&parts.headers))?;
        if parts.headers.contains_key(header::AUTHORIZATION) {
            return Err(ApiError::new(&codes::AMBIGUOUS_CREDENTIALS));
        }
        let found = <Arc<dyn AuthenticateService>>::from_ref(state).authenticate_service(secret).await;
        if let Some(limit) = parts.extensions.get::<AccountLimit>() {
            match &found {
                Ok(key) => limit.check_service(secret, key, || ClientInfo::of(parts)).await?,
                Err(error) if error.code() == &codes::SERVICE_UNAUTHENTICATED => limit.forget_service(secret),
                Err(_) => {}
            }
        }
        let key = found?;
        let app = app_of(&key.app, &parts.headers)?;
        Ok(Self { key_id: key.id.clone(), app, scopes: key.scopes.clone() })
    }
}

/// The refusal of a request that has no service key.
fn without_key(headers: &HeaderMap) -> ApiError {
    ApiError::new(&codes::SERVICE_UNAUTHENTICATED).with_hint(if headers.contains_key(&SERVICE_KEY) {
        "The X-Service-Key header must be there once, in ASCII"
    } else if headers.contains_key(header::AUTHORIZATION) {
        "Tokens of users are not taken here: this needs a service key, as X-Service-Key"
    } else {
        "There is no X-Service-Key header: this needs a service key"
    })
}

/// Whoever asks: a user by a bearer token, or an app by its key. Never both: one request is somebody in one way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A user with a live session.
    User(Caller),
    /// An app.
    Service(ServiceCaller),
}

impl<S> FromRequestParts<S> for Principal
where
    S: Send + Sync,
    Arc<dyn Authenticate>: FromRef<S>,
    Arc<dyn AuthenticateService>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if parts.headers.contains_key(&SERVICE_KEY) {
            ServiceCaller::from_request_parts(parts, state).await.map(Self::Service)
        } else {
            Caller::from_request_parts(parts, state).await.map(Self::User)
        }
    }
}

/// The text of a header that a request has exactly once.
pub(crate) fn the_one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    value.to_str().ok()
}

/// The app that a request acts as, by its key and by its header.
fn app_of(app: &KeyApp, headers: &HeaderMap) -> Result<ActingApp, ApiError> {
    let named = if headers.contains_key(&APP_ID) {
        let line = the_one(headers, &APP_ID).and_then(|text| Line::try_from(text.to_owned()).ok());
        Some(line.ok_or_else(|| {
            ApiError::new(&codes::INVALID_HEADER)
                .with_detail("X-App-Id must be one line of 1 to 128 characters")
        })?)
    } else {
        None
    };
    match (app, named) {
        (KeyApp::Only(own), Some(named)) if named != *own => Err(ApiError::new(&codes::SERVICE_APP_MISMATCH)),
        (KeyApp::Only(own), _) => Ok(ActingApp::Own(own.clone())),
        (KeyApp::Any { .. }, Some(named)) => Ok(ActingApp::Named(named)),
        (KeyApp::Any { otherwise }, None) => Ok(ActingApp::Open { otherwise: otherwise.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Settings;
    use crate::rate_limit::RateLimits;
    use axum::Router;
    use axum::routing::get;
    use mana_kernel::{Clock, SessionId, UserId};
    use mana_testkit::{Client, FakeClock};
    use std::time::Duration;

    type Port<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

    /// Knows a few keys by name, and one user.
    #[derive(Debug)]
    struct Known;

    impl Authenticate for Known {
        fn authenticate<'a>(&'a self, bearer: &'a str) -> Port<'a, Caller> {
            Box::pin(async move {
                let id = |text: &str| text.parse::<UserId>().unwrap();
                let session_id: SessionId = "session".parse().unwrap();
                match bearer {
                    "ada" => Ok(Caller { user_id: id("ada"), session_id }),
                    _ => Err(ApiError::new(&codes::UNAUTHENTICATED)),
                }
            })
        }

        fn is_admin<'a>(&'a self, _: &'a Caller) -> Port<'a, bool> {
            Box::pin(async { Ok(false) })
        }

        fn require_fresh<'a>(&'a self, _: &'a Caller) -> Port<'a, ()> {
            Box::pin(async { Ok(()) })
        }

        fn require_fresh_admin<'a>(&'a self, _: &'a Caller) -> Port<'a, ()> {
            Box::pin(async { Err(ApiError::new(&codes::ADMIN_REQUIRED)) })
        }
    }

    impl AuthenticateService for Known {
        fn authenticate_service<'a>(&'a self, secret: &'a str) -> Port<'a, Arc<ServiceKey>> {
            Box::pin(async move {
                let line = |text: &str| Line::try_from(text.to_owned()).unwrap();
                let app = match secret {
                    "of-mail" | "limited" => KeyApp::Only(line("mail")),
                    "of-any" => KeyApp::Any { otherwise: None },
                    "given" => KeyApp::Any { otherwise: Some(line("service")) },
                    "unknowable" => return Err(ApiError::new(&codes::UNAVAILABLE)),
                    _ => return Err(ApiError::new(&codes::SERVICE_UNAUTHENTICATED)),
                };
                let limit_per_minute = (secret == "limited").then_some(2);
                let scopes = Scopes::from([Scope::CreditsRead]);
                Ok(Arc::new(ServiceKey { id: secret.to_owned(), app, scopes, limit_per_minute }))
            })
        }
    }

    #[derive(Debug, Clone)]
    struct State;

    impl FromRef<State> for Arc<dyn Authenticate> {
        fn from_ref(_: &State) -> Self {
            Arc::new(Known)
        }
    }

    impl FromRef<State> for Arc<dyn AuthenticateService> {
        fn from_ref(_: &State) -> Self {
            Arc::new(Known)
        }
    }

    async fn whoever(principal: Principal) -> Result<String, ApiError> {
        match principal {
            Principal::User(caller) => Ok(format!("user {}", caller.user_id)),
            Principal::Service(service) => Ok(format!("{} as {}", service.key_id, service.app()?)),
        }
    }

    async fn about_chat(service: ServiceCaller) -> String {
        service.app_of("chat").to_owned()
    }

    async fn spend(service: ServiceCaller) -> Result<String, ApiError> {
        service.require(Scope::CreditsRead)?;
        service.require(Scope::CreditsSpend)?;
        Ok(service.key_id)
    }

    fn client() -> Client {
        let routes = Router::new()
            .route("/whoever", get(whoever))
            .route("/chat", get(about_chat))
            .route("/spend", get(spend))
            .with_state(State);
        let clock: Arc<dyn Clock> = Arc::new(FakeClock::new());
        let settings = Settings { rate_limit_max: 5, ..Settings::defaults().unwrap() };
        let limits = Arc::new(RateLimits::new(&settings, None, &clock));
        let own = "http://localhost:3001".parse().unwrap();
        Client::new(
            crate::http::frame::around(routes, &[], &own, "Mana", Duration::from_secs(5), &[], &limits)
                .unwrap(),
        )
    }

    /// Status, and the body's text or the problem's code.
    async fn ask(path: &str, headers: &[(&str, &str)]) -> (u16, String) {
        let request =
            headers.iter().fold(client().get(path), |request, (name, value)| request.header(name, value));
        let reply = request.send().await;
        let text = match reply.status.as_u16() {
            200 => String::from_utf8(reply.bytes.to_vec()).unwrap(),
            _ => reply.problem().to_owned(),
        };
        (reply.status.as_u16(), text)
    }

    #[tokio::test]
    async fn a_request_is_a_user_or_an_app_and_never_both() {
        let bearer = ("authorization", "Bearer ada");
        for (headers, status, expected) in [
            (&[bearer][..], 200, "user ada"),
            (&[("x-service-key", "of-mail")], 200, "of-mail as mail"),
            (&[bearer, ("x-service-key", "of-mail")], 400, "request.ambiguous_credentials"),
            (&[bearer, ("x-service-key", "no-key")], 400, "request.ambiguous_credentials"),
            (&[], 401, "auth.unauthenticated"),
            (&[("x-service-key", "no-key")], 401, "service.unauthenticated"),
            (&[("x-service-key", "")], 401, "service.unauthenticated"),
            (&[("x-service-key", "k\u{e4}y")], 401, "service.unauthenticated"),
            (&[("x-service-key", "of-mail"), ("x-service-key", "of-mail")], 401, "service.unauthenticated"),
            (&[("x-service-key", "unknowable")], 503, "service.unavailable"),
        ] {
            assert_eq!(ask("/whoever", headers).await, (status, expected.to_owned()), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn the_app_is_that_of_the_key_else_of_the_header_else_what_the_request_is_about() {
        let long = "a".repeat(129);
        for (key, app, status, expected) in [
            ("of-mail", Some("mail"), 200, "of-mail as mail"),
            ("of-mail", Some("chat"), 403, "service.app_mismatch"),
            ("of-any", Some("chat"), 200, "of-any as chat"),
            ("of-any", None, 400, "service.app_missing"),
            ("given", None, 200, "given as service"),
            ("given", Some("mail"), 200, "given as mail"),
            ("of-any", Some(""), 400, "request.invalid_header"),
            ("of-any", Some(&long), 400, "request.invalid_header"),
        ] {
            let mut headers = vec![("x-service-key", key)];
            headers.extend(app.map(|app| ("x-app-id", app)));
            assert_eq!(ask("/whoever", &headers).await, (status, expected.to_owned()), "{headers:?}");
        }
        for (key, app, expected) in [
            ("of-mail", None, "mail"),
            ("of-any", None, "chat"),
            ("of-any", Some("shop"), "shop"),
            ("given", None, "chat"),
        ] {
            let mut headers = vec![("x-service-key", key)];
            headers.extend(app.map(|app| ("x-app-id", app)));
            assert_eq!(ask("/chat", &headers).await, (200, expected.to_owned()), "{headers:?}");
        }
    }

    #[tokio::test]
    async fn a_route_for_apps_takes_no_user_and_names_the_scope_that_is_missing() {
        let refused = ask("/spend", &[("authorization", "Bearer ada")]).await;
        assert_eq!(refused, (401, "service.unauthenticated".to_owned()));
        let refused = client().get("/spend").header("x-service-key", "of-mail").send().await;
        assert_eq!((refused.status.as_u16(), refused.problem()), (403, "service.scope_missing"));
        assert_eq!(refused.text("/detail"), "The service key lacks the scope credits:spend");
    }

    #[test]
    fn a_scope_has_one_name_everywhere() {
        for scope in Scope::value_variants() {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!(scope.to_possible_value().unwrap().get_name(), scope.as_str());
            assert_eq!(Scope::from_database(scope.as_str()), Some(*scope));
        }
        assert_eq!(Scope::from_database("credits:mint"), None);
    }

    /// How often `headers` are answered until a limit is met.
    async fn answered_until_limited(client: &Client, headers: &[(&str, &str)]) -> usize {
        for count in 0..20 {
            let request = headers
                .iter()
                .fold(client.get("/whoever"), |request, (name, value)| request.header(name, value));
            if request.send().await.status == 429 {
                return count;
            }
        }
        20
    }

    #[tokio::test]
    async fn an_app_is_counted_by_its_key_and_not_by_the_address_it_shares_with_its_users() {
        let client = client();
        let mail = [("x-service-key", "of-mail")];
        assert_eq!(answered_until_limited(&client, &mail).await, 20, "it has no limit");
        assert_eq!(answered_until_limited(&client, &[("x-service-key", "limited")]).await, 2);
        let limited = client.get("/whoever").header("x-service-key", "limited").send().await;
        assert_eq!(limited.problem(), "request.rate_limited");
        assert_eq!(limited.headers["ratelimit-policy"], "\"service-key\";q=2;w=60");
        assert_eq!(limited.headers["ratelimit"], "\"service-key\";r=0;t=30");
        // Each key's first use was counted for the address, which has five.
        assert_eq!(answered_until_limited(&client, &[("x-service-key", "no-key")]).await, 3);
        assert_eq!(answered_until_limited(&client, &mail).await, 20, "the key is known");
        assert_eq!(answered_until_limited(&client, &[("authorization", "Bearer ada")]).await, 0);
    }
}
