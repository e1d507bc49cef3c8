//! Callers who have proven who they are a moment ago: what changes an account's protection, or lets it be charged, asks for one.

use super::model::SessionError;
use super::store;
use crate::Auth;
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller};

/// Refuses a caller whose sign-in, and whose last proof within the session, are older than `FRESH_AUTHENTICATION`.
pub(crate) async fn require_fresh(auth: &Auth, caller: &Caller) -> Result<(), ApiError> {
    if is_fresh(auth, caller).await? { Ok(()) } else { Err(SessionError::NotFresh.into()) }
}

/// Whether the caller's session lives and the last proof in it is young enough.
pub(crate) async fn is_fresh(auth: &Auth, caller: &Caller) -> Result<bool, DbError> {
    let mut transaction = auth.database.begin_as(&caller.user_id).await?;
    let now = auth.clock.now();
    let authenticated_at = store::find_authenticated_at(&mut transaction, &caller.session_id, now).await?;
    Ok(authenticated_at.is_some_and(|at| auth.policy.is_fresh(at, now)))
}
