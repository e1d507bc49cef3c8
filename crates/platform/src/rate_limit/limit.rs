//! The limits around every route, and the headers that tell of them (draft-ietf-httpapi-ratelimit-headers).

use super::quota::{Decision, Quota, whole_seconds};
use super::route_class::RouteClass;
use super::{RateLimits, Subject};
use crate::http::service::{SERVICE_KEY, the_one};
use crate::http::{ApiError, ClientInfo, KeyApp, ServiceKey, codes};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use mana_kernel::UserId;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is left, and when more is.
pub(crate) static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What is allowed.
pub(crate) static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What the policy of a service key is called.
const OF_SERVICE_KEY: &str = "service-key";

/// What a request was counted against, and what became of it: what the headers tell.
#[derive(Debug, Clone, Copy)]
struct Counted {
    policy: &'static str,
    quota: Quota,
    decision: Decision,
}

impl Counted {
    /// The one of two that leaves less.
    fn tighter(self, other: Self) -> Self {
        if self.decision.tighter(other.decision) == other.decision { other } else { self }
    }
}

/// Counts a request for its client's address, answers it when that has had enough, and lets [`AccountLimit`] count it
/// for its caller.
///
/// A backend asks for many users from one address, so a request with a service key is not counted for its address, once the
/// key was found good. Whatever else it says it is, it is counted: a key that nobody has looked up is no way around a limit.
pub(crate) async fn limit(
    State(limits): State<Arc<RateLimits>>,
    mut request: Request,
    next: Next,
) -> Response {
    let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let Some(class) = RouteClass::of(request.method(), template) else {
        return next.run(request).await;
    };
    let secret = the_one(request.headers(), &SERVICE_KEY).filter(|_| class == RouteClass::Other);
    let mut of_address = None;
    if !secret.is_some_and(|secret| limits.in_process.is_good_key(secret)) {
        let client = ClientInfo::read(request.headers(), request.extensions());
        let subject = Subject::Address(client.bucket());
        let Some((quota, decision)) = limits.count(class, &subject).await else {
            return next.run(request).await;
        };
        let counted = Counted { policy: class.as_str(), quota, decision };
        if let Decision::Refused { wait } = decision {
            let mut response = limits.refuse(class, &subject, client, None, wait).into_response();
            counted.tell(&mut response);
            return response;
        }
        of_address = Some(counted);
    }
    let of_caller = OfCaller::default();
    request.extensions_mut().insert(AccountLimit { limits, class, of_caller: of_caller.clone() });
    let mut response = next.run(request).await;
    let counted = match (of_address, of_caller.get().map(|of_caller| of_caller.counted)) {
        (Some(of_address), Some(of_caller)) => Some(of_address.tighter(of_caller)),
        (of_address, of_caller) => of_caller.or(of_address),
    };
    if let Some(counted) = counted {
        counted.tell(&mut response);
    }
    response
}

impl Counted {
    fn tell(self, response: &mut Response) {
        // A policy's name and numbers are always a value.
        let value = |text| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
        response.headers_mut().extend([
            (RATE_LIMIT_POLICY.clone(), value(self.allowed())),
            (RATE_LIMIT.clone(), value(self.left())),
        ]);
    }

    /// `"login";q=10;w=60`
    fn allowed(self) -> String {
        format!("\"{}\";q={};w={}", self.policy, self.quota.limit(), self.quota.window().as_secs())
    }

    /// `"login";r=9;t=6`: what is left, and the seconds until all of it is there again; after a refusal, until there is
    /// one, as in Retry-After.
    fn left(self) -> String {
        let (remaining, seconds) = match self.decision {
            Decision::Allowed { remaining } => (remaining, self.quota.seconds_to_full(remaining)),
            Decision::Refused { wait } => (0, whole_seconds(wait)),
        };
        format!("\"{}\";r={remaining};t={seconds}", self.policy)
    }
}

/// The second half of a request's limits, in its extensions: counted when the caller is known.
#[derive(Debug, Clone)]
pub(crate) struct AccountLimit {
    limits: Arc<RateLimits>,
    class: RouteClass,
    of_caller: OfCaller,
}

/// What the caller of a request was counted as, once it was; for the headers, and for whoever counts more.
#[derive(Debug, Clone, Default)]
struct OfCaller(Arc<Mutex<Option<CountedCaller>>>);

#[derive(Debug, Clone)]
struct CountedCaller {
    subject: Subject,
    counted: Counted,
}

impl OfCaller {
    fn get(&self) -> Option<CountedCaller> {
        self.locked().clone()
    }

    /// Nothing panics while it is held.
    fn locked(&self) -> MutexGuard<'_, Option<CountedCaller>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much a request weighs: for routes that do many things in one. What is counted is the caller's limit, not the address's, from which
/// many may ask.
#[derive(Debug)]
pub struct Weight {
    limit: Option<AccountLimit>,
    client: ClientInfo,
}

impl<S: Send + Sync> FromRequestParts<S> for Weight {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let limit = parts.extensions.get::<AccountLimit>().cloned();
        Ok(Self { limit, client: ClientInfo::read(&parts.headers, &parts.extensions) })
    }
}

impl Weight {
    /// Counts the request for its caller as `requests`, of which one is counted already; as all that the caller may ask at once if that is
    /// more, so that none is refused for ever. To be called when the caller is known.
    ///
    /// # Errors
    /// When that is more than the caller has left. Then none of it is taken.
    pub async fn count(self, requests: u32) -> Result<(), ApiError> {
        let Some(limit) = self.limit else { return Ok(()) };
        let Some(CountedCaller { subject, counted: Counted { policy, quota, .. } }) = limit.of_caller.get()
        else {
            return Ok(());
        };
        let more = requests.min(quota.limit().get()).saturating_sub(1);
        if more == 0 {
            return Ok(());
        }
        let decision = limit.limits.count_within(limit.class, &subject, quota, more).await;
        let counted = Counted { policy, quota, decision };
        *limit.of_caller.locked() = Some(CountedCaller { subject: subject.clone(), counted });
        limit.judge(counted, &subject, || self.client)
    }
}

impl AccountLimit {
    /// Counts the request for its caller, from whatever address.
    ///
    /// # Errors
    /// When the account has had enough.
    pub(crate) async fn check(
        &self,
        user: &UserId,
        client: impl FnOnce() -> ClientInfo,
    ) -> Result<(), ApiError> {
        let subject = Subject::User(user.clone());
        let Some((quota, decision)) = self.limits.count(self.class, &subject).await else {
            return Ok(());
        };
        self.settle(Counted { policy: self.class.as_str(), quota, decision }, subject, client)
    }

    /// Counts the request for the app whose key it was made with, or for a key of any app, by the limit of the key if it has one; and knows the key
    /// from then on.
    ///
    /// # Errors
    /// When the app, or the key, has had enough.
    pub(crate) async fn check_service(
        &self,
        secret: &str,
        key: &ServiceKey,
        client: impl FnOnce() -> ClientInfo,
    ) -> Result<(), ApiError> {
        self.limits.in_process.note_good_key(secret);
        let Some(quota) = key.limit_per_minute.and_then(|limit| Quota::new(limit, Duration::from_mins(1)))
        else {
            return Ok(());
        };
        let subject = match &key.app {
            KeyApp::Only(app) => Subject::App(app.as_str().to_owned()),
            KeyApp::Any { .. } => Subject::ServiceKey(key.id.clone()),
        };
        let decision = self.limits.count_within(self.class, &subject, quota, 1).await;
        self.settle(Counted { policy: OF_SERVICE_KEY, quota, decision }, subject, client)
    }

    /// Knows the key no more: it is not accepted.
    pub(crate) fn forget_service(&self, secret: &str) {
        self.limits.in_process.forget_key(secret);
    }

    fn settle(
        &self,
        counted: Counted,
        subject: Subject,
        client: impl FnOnce() -> ClientInfo,
    ) -> Result<(), ApiError> {
        let judged = self.judge(counted, &subject, client);
        // There already only at a second look at the caller, which the first one's answer covers.
        self.of_caller.locked().get_or_insert(CountedCaller { subject, counted });
        judged
    }

    fn judge(
        &self,
        counted: Counted,
        subject: &Subject,
        client: impl FnOnce() -> ClientInfo,
    ) -> Result<(), ApiError> {
        let user = match subject {
            Subject::User(user) => Some(user),
            Subject::Address(_) | Subject::App(_) | Subject::ServiceKey(_) => None,
        };
        match counted.decision {
            Decision::Refused { wait } => Err(self.limits.refuse(self.class, subject, client(), user, wait)),
            Decision::Allowed { .. } => Ok(()),
        }
    }
}

/// The answer to a request beyond its limit.
pub(super) fn refusal(class: RouteClass, wait: Duration) -> ApiError {
    let seconds = whole_seconds(wait).max(1);
    let code = if class == RouteClass::Refresh { &codes::REFRESH_LIMITED } else { &codes::RATE_LIMITED };
    ApiError::new(code)
        .with_detail(format!("Too many requests: the rate limit is reached. Try again in {seconds} s"))
        .with_retry_after(seconds)
}
