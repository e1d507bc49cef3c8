//! Who is asking, and from where.

use super::client_address::{AddressBucket, ClientAddress};
use super::service::SERVICE_KEY;
use super::{ApiError, codes};
use crate::rate_limit::AccountLimit;
use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{Extensions, HeaderMap, header};
use mana_kernel::{SessionId, UserId};
use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

/// A user with a live session, proven by the bearer token of this request.
///
/// A handler that takes a `Caller` can't be reached without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The user.
    pub user_id: UserId,
    /// The session the token was issued under.
    pub session_id: SessionId,
}

/// Port: turns a bearer token into a caller. Implemented by the accounts.
pub trait Authenticate: Send + Sync + std::fmt::Debug {
    /// The caller behind `bearer`.
    ///
    /// Fails with [`codes::UNAUTHENTICATED`] when the token is not accepted or its session has ended, and with a code
    /// of its own when that can't be found out: a check never passes because its database is away.
    fn authenticate<'a>(
        &'a self,
        bearer: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<Caller, ApiError>> + Send + 'a>>;

    /// Whether the caller is an administrator now. A token may be older than the loss of the role.
    fn is_admin<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Result<bool, ApiError>> + Send + 'a>>;

    /// Refuses a caller who has not proven a moment ago to be the user.
    fn require_fresh<'a>(
        &'a self,
        caller: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 'a>>;

    /// Refuses an administrator who has not proven a moment ago to be it.
    fn require_fresh_admin<'a>(
        &'a self,
        admin: &'a Caller,
    ) -> Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send + 'a>>;
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<dyn Authenticate>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let bearer = bearer(&parts.headers).ok_or_else(|| without_bearer(&parts.headers))?;
        let caller = <Arc<dyn Authenticate>>::from_ref(state).authenticate(bearer).await?;
        if let Some(limit) = parts.extensions.get::<AccountLimit>() {
            limit.check(&caller.user_id, || ClientInfo::of(parts)).await?;
        }
        Ok(caller)
    }
}

/// A caller whose sign-in, or whose last proof within the session, is younger than `FRESH_AUTHENTICATION`. A handler that takes one can't be
/// reached by who only found a device unlocked: for what changes an account's protection, or lets it be charged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshCaller(pub Caller);

impl<S> FromRequestParts<S> for FreshCaller
where
    S: Send + Sync,
    Arc<dyn Authenticate>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        <Arc<dyn Authenticate>>::from_ref(state).require_fresh(&caller).await?;
        Ok(Self(caller))
    }
}

/// A caller who is an administrator as this request arrives. A handler that takes one can't be reached by anybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin(pub Caller);

impl<S> FromRequestParts<S> for Admin
where
    S: Send + Sync,
    Arc<dyn Authenticate>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if <Arc<dyn Authenticate>>::from_ref(state).is_admin(&caller).await? {
            Ok(Self(caller))
        } else {
            Err(ApiError::new(&codes::ADMIN_REQUIRED))
        }
    }
}

/// An administrator whose last proof is younger than `FRESH_AUTHENTICATION`, and was a second factor if the account has one: for what moves
/// money, or changes who administrates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreshAdmin(pub Caller);

impl<S> FromRequestParts<S> for FreshAdmin
where
    S: Send + Sync,
    Arc<dyn Authenticate>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Admin(caller) = Admin::from_request_parts(parts, state).await?;
        <Arc<dyn Authenticate>>::from_ref(state).require_fresh_admin(&caller).await?;
        Ok(Self(caller))
    }
}

/// The bearer token of a request (RFC 6750, header form only), if it has exactly one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && !token.contains(' ')).then_some(token)
}

/// The refusal of a request that has no bearer token. None was sent that could be judged, so the challenge says no error.
fn without_bearer(headers: &HeaderMap) -> ApiError {
    ApiError::new(&codes::UNAUTHENTICATED).with_hint(if headers.contains_key(header::AUTHORIZATION) {
        "The Authorization header must be there once, as Bearer and an access token"
    } else if headers.contains_key(&SERVICE_KEY) {
        "Service keys are not taken here: this needs the access token of a user, as Authorization: Bearer"
    } else {
        "There is no Authorization header: this needs the access token of a user, as Bearer"
    })
}

/// Where a request comes from, as far as the service can know.
#[derive(Debug, Clone, Default)]
pub struct ClientInfo {
    /// Address of the client; of the peer, unless that is a trusted proxy (`TRUSTED_PROXIES`).
    pub ip_address: Option<IpAddr>,
    /// What the client calls itself; at most 512 characters are kept.
    pub user_agent: Option<String>,
}

impl ClientInfo {
    /// What the address counts as.
    pub fn bucket(&self) -> AddressBucket {
        AddressBucket::of(self.ip_address)
    }

    pub(super) fn of(parts: &Parts) -> Self {
        Self::read(&parts.headers, &parts.extensions)
    }

    pub(crate) fn read(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let user_agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        Self {
            ip_address: extensions.get::<ClientAddress>().map(|ClientAddress(address)| *address),
            user_agent: user_agent.map(|text| text.chars().take(512).collect()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ClientInfo {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(parts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    #[test]
    fn a_bearer_token_is_one_header_of_two_words() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer abc"]).as_deref(), Some("abc"));
        for bad in [
            &["Bearer"][..],
            &["Bearer "],
            &["Basic abc"],
            &["Bearer a b"],
            &["abc"],
            &[],
            &["Bearer a", "Bearer a"],
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn a_bearer_token_is_all_that_stands_behind_the_scheme(value in "[Bb]earer [!-~\t\u{e4}]{0,40}|[ -~]{0,40}", other in "[ -~]{0,20}") {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let mut headers = HeaderMap::new();
            headers.append(header::AUTHORIZATION, value.clone());
            if let Some(token) = bearer(&headers) {
                prop_assert!(!token.is_empty() && !token.contains(' '));
                let (scheme, rest) = value.to_str().unwrap().split_at("Bearer ".len());
                prop_assert!(scheme.eq_ignore_ascii_case("bearer ") && rest == token);
            }
            headers.append(header::AUTHORIZATION, HeaderValue::from_bytes(other.as_bytes()).unwrap());
            prop_assert_eq!(bearer(&headers), None, "of two, none is chosen");
        }

        #[test]
        fn a_user_agent_is_a_start_of_what_was_sent(value in proptest::collection::vec(prop_oneof![32_u8..127, 128_u8..=255], 0..700)) {
            let headers = HeaderMap::from_iter([(header::USER_AGENT, HeaderValue::from_bytes(&value).unwrap())]);
            let kept = ClientInfo::read(&headers, &Extensions::new()).user_agent;
            prop_assert!(kept.is_none_or(|kept| kept.len() <= 512 && value.starts_with(kept.as_bytes())));
        }
    }
}
