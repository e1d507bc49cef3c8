//! Administrators who have proven who they are a moment ago: what changes who administrates, or how somebody proves to be it, asks for
//! one.

use crate::session::fresh::is_fresh;
use crate::session::model::SessionError;
use crate::session::store::{find_proof, find_session};
use crate::two_factor::store::find_factors;
use crate::{Auth, AuthState};
use axum::extract::FromRequestParts;
use http::request::Parts;
use mana_platform::DbError;
use mana_platform::http::{Admin, ApiError, Caller};

/// An administrator whose last proof is younger than `FRESH_AUTHENTICATION`, and was a second factor if the account has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FreshAdmin(pub(crate) Caller);

impl FromRequestParts<AuthState> for FreshAdmin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AuthState) -> Result<Self, ApiError> {
        let Admin(caller) = Admin::from_request_parts(parts, state).await?;
        if is_fresh(state, &caller).await? && has_given_its_factor(state, &caller).await? {
            Ok(Self(caller))
        } else {
            Err(SessionError::NotFresh.into())
        }
    }
}

/// Whether what is fresh was proven by a second factor, or the account has none. With an authenticator app, a proof after the sign-in is by
/// a factor alone. With passkeys only, the password is one as well: then it has to be the sign-in that is fresh.
async fn has_given_its_factor(auth: &Auth, caller: &Caller) -> Result<bool, DbError> {
    let mut transaction = auth.database.begin().await?;
    let factors = find_factors(&mut transaction, &caller.user_id).await?;
    if !factors.has_totp && !factors.has_passkey {
        return Ok(true);
    }
    let has_given = find_proof(&mut transaction, &caller.session_id).await?.has_second_factor();
    if factors.has_totp || !has_given {
        return Ok(has_given);
    }
    let session = find_session(&mut transaction, &caller.session_id).await?;
    Ok(session.is_some_and(|session| auth.policy.is_fresh(session.created_at, auth.clock.now())))
}
