//! The end of a wallet, in the transaction that deletes its user's account. What was booked stays; nothing is booked any more.

use super::error::LedgerError;
use super::store;
use mana_kernel::{Clock, UserId};
use mana_platform::hold_briefly;
use sqlx::PgConnection;

/// Closes the wallet of a user whose account ends.
///
/// # Errors
/// When the database fails; the deletion must roll back then.
pub async fn close_wallet(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    user: &UserId,
) -> Result<(), LedgerError> {
    hold_briefly(connection).await?;
    Ok(store::update_closed(connection, user, clock.now()).await?)
}
