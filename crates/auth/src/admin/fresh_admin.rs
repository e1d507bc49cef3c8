//! Administrators who have proven who they are a moment ago: what changes who administrates, or how somebody proves to be it, asks for
//! one.

use crate::session::fresh::is_fresh;
use crate::session::model::SessionError;
use crate::session::store::find_proof;
use crate::two_factor::store::find_factors;
use crate::{Auth, AuthState};
use axum::extract::FromRequestParts;
use http::request::Parts;
use mana_platform::DbError;
use mana_platform::http::{Admin, ApiError, Caller};

/// An administrator whose last proof is younger than `FRESH_AUTHENTICATION`, and was a second factor if the account has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FreshAdmin(pub(super) Caller);

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

/// Whether the session was proven by a second factor, or the account has none. Where one is set up, a proof after the sign-in is by that
/// factor alone, so that what is fresh is it.
async fn has_given_its_factor(auth: &Auth, caller: &Caller) -> Result<bool, DbError> {
    let mut transaction = auth.database.begin().await?;
    let factors = find_factors(&mut transaction, &caller.user_id).await?;
    if !factors.has_totp && !factors.has_passkey {
        return Ok(true);
    }
    Ok(find_proof(&mut transaction, &caller.session_id).await?.has_second_factor())
}
