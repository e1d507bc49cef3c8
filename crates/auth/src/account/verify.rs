//! An address is proven: what its owner could not do or have before.

use super::model::{AccountError, User};
use super::store;
use crate::Auth;
use crate::bonus::{self, SignupBonus};
use crate::security_event::Origin;
use mana_kernel::UserId;
use sqlx::PgConnection;

/// For whoever is to lock a user and may then prove the address: locks what a sign-up bonus that waits for it is booked in, as a spend does
/// before it locks the user.
pub(crate) async fn before_lock(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &UserId,
) -> Result<(), AccountError> {
    // Bonuses begin to wait at registration only: one that does not wait now never will.
    if bonus::store::exists_pending(connection, user).await? {
        auth.on_user_registered.before_bonus(connection, user).await.map_err(AccountError::Port)?;
    }
    Ok(())
}

/// Notes that whoever owns the account reads the mail of its address, in the transaction that uses the proof up. False if
/// that was known, or the account has another address by now. A sign-up bonus that waited for it is given. Whoever calls has locked the user,
/// after `before_lock`.
///
/// # Errors
/// When the database or the port fails; then nothing may be kept.
pub async fn mark_verified(
    connection: &mut PgConnection,
    auth: &Auth,
    user: &User,
    origin: &Origin,
) -> Result<bool, AccountError> {
    if !store::update_verified(connection, &user.id, &user.email, auth.clock.now()).await? {
        return Ok(false);
    }
    if bonus::once_verified(connection, auth, user, origin).await? == SignupBonus::Given {
        auth.on_user_registered.on_bonus_due(connection, &user.id).await.map_err(AccountError::Port)?;
    }
    Ok(true)
}
