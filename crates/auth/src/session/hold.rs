//! What a change of an account's protection begins with: the session that asks for it lives, and goes on to until the change is done.

use super::store::hold_session;
use crate::Auth;
use crate::account::model::User;
use mana_platform::http::{ApiError, Caller, codes};
use sqlx::PgConnection;

/// The caller's account, which nobody else changes or signs in to until the transaction ends; nor does anybody end the session. What the
/// caller's token said was true some time ago: another server may have ended the session since.
pub(crate) async fn hold(
    connection: &mut PgConnection,
    auth: &Auth,
    caller: &Caller,
) -> Result<User, ApiError> {
    let held = hold_session(connection, &caller.session_id, &caller.user_id, auth.clock.now()).await?;
    held.ok_or_else(|| ApiError::new(&codes::UNAUTHENTICATED))
}
