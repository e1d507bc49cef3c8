//! Callers who have proven who they are a moment ago: what changes an account's protection asks for one.

use super::model::SessionError;
use super::store;
use crate::{Auth, AuthState};
use axum::extract::FromRequestParts;
use http::request::Parts;
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller};

/// A caller whose sign-in, or whose last proof within the session, is younger than `FRESH_AUTHENTICATION`. A handler that takes one can't
/// be reached by who only found a device unlocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FreshCaller(pub(crate) Caller);

impl FromRequestParts<AuthState> for FreshCaller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AuthState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        if is_fresh(state, &caller).await? { Ok(Self(caller)) } else { Err(SessionError::NotFresh.into()) }
    }
}

/// Whether the caller's session lives and the last proof in it is young enough.
pub(crate) async fn is_fresh(auth: &Auth, caller: &Caller) -> Result<bool, DbError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    let now = auth.clock.now();
    let authenticated_at = store::find_authenticated_at(&mut transaction, &caller.session_id, now).await?;
    Ok(authenticated_at.is_some_and(|at| auth.policy.is_fresh(at, now)))
}
