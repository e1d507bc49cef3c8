//! Administrators who have proven who they are a moment ago: what moves money, changes who administrates, or how somebody proves to be it,
//! asks for one.

use crate::Auth;
use crate::session::fresh::is_fresh;
use crate::session::model::SessionError;
use crate::session::store::{find_proof, find_session};
use crate::two_factor::store::find_factors;
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller};

/// Refuses an administrator whose last proof is older than `FRESH_AUTHENTICATION`, or was no second factor although the account has one.
pub(crate) async fn require_fresh(auth: &Auth, admin: &Caller) -> Result<(), ApiError> {
    if is_fresh(auth, admin).await? && has_given_its_factor(auth, admin).await? {
        Ok(())
    } else {
        Err(SessionError::NotFresh.into())
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
