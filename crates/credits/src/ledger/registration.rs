//! What comes with a new account: its wallet and the sign-up bonus, in the transaction that registers the user.

use super::error::LedgerError;
use super::model::{Command, Stamp};
use super::store;
use crate::Policy;
use mana_kernel::{Clock, Rng, TransactionId, UserId};
use sqlx::PgConnection;

/// Opens the wallet of a user that is being registered and books the bonus.
///
/// # Errors
/// When the database fails; the registration must roll back then.
pub async fn open_wallet(
    connection: &mut PgConnection,
    policy: &Policy,
    clock: &dyn Clock,
    rng: &dyn Rng,
    user: &UserId,
) -> Result<(), LedgerError> {
    let now = clock.now();
    store::insert_wallet(connection, user, &policy.daily_zone, now).await?;
    let Some(amount) = policy.signup_bonus else {
        return Ok(());
    };
    let (mut wallet, _) =
        store::lock_wallet(connection, user, &policy.daily_zone).await?.ok_or(LedgerError::WalletMissing)?;
    let stamp = Stamp { id: TransactionId::new(clock, rng), at: now };
    let posting = wallet.apply(&Command::SignupBonus { amount }, stamp)?;
    store::write(connection, &wallet, &[posting], now).await?;
    Ok(())
}
