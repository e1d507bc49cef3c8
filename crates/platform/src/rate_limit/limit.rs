//! The limits around every route, and the headers that tell of them (draft-ietf-httpapi-ratelimit-headers).

use super::quota::{Decision, Quota, whole_seconds};
use super::route_class::RouteClass;
use super::{RateLimits, Subject};
use crate::http::{ApiError, ClientInfo, codes};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderName, HeaderValue};
use mana_kernel::UserId;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// What is left, and when more is.
pub(crate) static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// What is allowed.
pub(crate) static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Counts a request for its client's address, answers it when that has had enough, and lets [`AccountLimit`] count it
/// for its caller.
pub(crate) async fn limit(
    State(limits): State<Arc<RateLimits>>,
    mut request: Request,
    next: Next,
) -> Response {
    let template = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let Some(class) = RouteClass::of(request.method(), template) else {
        return next.run(request).await;
    };
    let client = ClientInfo::read(request.headers(), request.extensions());
    let subject = Subject::Address(client.bucket());
    let Some((quota, decision)) = limits.count(class, &subject).await else {
        return next.run(request).await;
    };
    let of_account = Arc::new(OnceLock::new());
    let mut response = match decision {
        Decision::Allowed { .. } => {
            let decision = Arc::clone(&of_account);
            request.extensions_mut().insert(AccountLimit { limits, class, decision });
            next.run(request).await
        }
        Decision::Refused { wait } => limits.refuse(class, &subject, client, None, wait).into_response(),
    };
    // An account has as much as an address, so one policy tells of both.
    let decision = of_account.get().map_or(decision, |of_account| decision.tighter(*of_account));
    let headers = response.headers_mut();
    headers.extend([
        (RATE_LIMIT_POLICY.clone(), policy(class, quota)),
        (RATE_LIMIT.clone(), left(class, quota, decision)),
    ]);
    response
}

/// `"login";q=10;w=60`
fn policy(class: RouteClass, quota: Quota) -> HeaderValue {
    let text = format!("\"{}\";q={};w={}", class.as_str(), quota.limit(), quota.window().as_secs());
    // A class's name and numbers are always a value.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// `"login";r=9;t=6`: what is left, and the seconds until all of it is there again; after a refusal, until there is
/// one, as in Retry-After.
fn left(class: RouteClass, quota: Quota, decision: Decision) -> HeaderValue {
    let (remaining, seconds) = match decision {
        Decision::Allowed { remaining } => (remaining, quota.seconds_to_full(remaining)),
        Decision::Refused { wait } => (0, whole_seconds(wait)),
    };
    let text = format!("\"{}\";r={remaining};t={seconds}", class.as_str());
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}

/// The second half of a request's limits, in its extensions: counted when the caller is known.
#[derive(Debug, Clone)]
pub(crate) struct AccountLimit {
    limits: Arc<RateLimits>,
    class: RouteClass,
    /// What became of it, for the headers.
    decision: Arc<OnceLock<Decision>>,
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
        let Some((_, decision)) = self.limits.count(self.class, &subject).await else {
            return Ok(());
        };
        // Taken already only by a second look at the caller, which the first one's answer covers.
        let _ = self.decision.set(decision);
        match decision {
            Decision::Refused { wait } => {
                Err(self.limits.refuse(self.class, &subject, client(), Some(user), wait))
            }
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
