//! What a change of an account's protection begins with: the session that asks for it lives, and goes on to until the change is done.

use super::model::SessionError;
use super::store::{hold_session, is_minted};
use crate::Auth;
use crate::account::model::User;
use mana_platform::http::{ApiError, Caller, codes};
use sqlx::PgConnection;

/// The caller's account, which nobody else changes or signs in to until the transaction ends; nor does anybody end the session. What the
/// caller's token said was true some time ago: another server may have ended the session since. Not within a session that an app opened.
pub(crate) async fn hold(
    connection: &mut PgConnection,
    auth: &Auth,
    caller: &Caller,
) -> Result<User, ApiError> {
    refuse_minted(connection, caller).await?;
    let held = hold_session(connection, &caller.session_id, &caller.user_id, auth.clock.now()).await?;
    held.ok_or_else(|| ApiError::new(&codes::UNAUTHENTICATED))
}

/// Refuses a caller whose session an app's backend opened: nobody has proven by it to be the user.
pub(crate) async fn refuse_minted(
    connection: &mut PgConnection,
    caller: &Caller,
) -> Result<(), SessionError> {
    if is_minted(connection, &caller.session_id).await? { Err(SessionError::Minted) } else { Ok(()) }
}
