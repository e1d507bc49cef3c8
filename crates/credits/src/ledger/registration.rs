//! What comes with a new account: its wallet, in the transaction that registers the user, and the sign-up bonus.

use super::error::LedgerError;
use super::model::{Command, Due, Refusal};
use super::store::{self, Changed};
use crate::Policy;
use mana_kernel::{Clock, Rng, TransactionId, UserId};
use mana_platform::hold_briefly;
use sqlx::PgConnection;

/// Opens the wallet of a user that is being registered.
///
/// # Errors
/// When the database fails; the registration must roll back then.
pub async fn open_wallet(
    connection: &mut PgConnection,
    policy: &Policy,
    clock: &dyn Clock,
    user: &UserId,
) -> Result<(), LedgerError> {
    let users = [user.as_str().to_owned()];
    Ok(store::insert_wallets(connection, &users, &policy.daily_zone, clock.now()).await?)
}

/// Locks the wallet of a user until the transaction ends: for whoever locks the user next and may give a bonus then. In this order a spend
/// locks the two.
///
/// # Errors
/// When the database fails.
pub async fn hold_wallet(
    connection: &mut PgConnection,
    policy: &Policy,
    user: &UserId,
) -> Result<(), LedgerError> {
    let users = [user.as_str().to_owned()];
    hold_briefly(connection).await?;
    store::lock_wallets(connection, &users, &policy.daily_zone).await?;
    Ok(())
}

/// Books the sign-up bonus of a user who has a wallet, at this moment. Whoever calls it sees to it that it happens once.
///
/// # Errors
/// When the database fails; what the bonus is given for must roll back then.
pub async fn give_bonus(
    connection: &mut PgConnection,
    policy: &Policy,
    clock: &dyn Clock,
    rng: &dyn Rng,
    user: &UserId,
) -> Result<(), LedgerError> {
    let users = [user.as_str().to_owned()];
    let Some(amount) = policy.signup_bonus else {
        return Ok(());
    };
    hold_briefly(connection).await?;
    let mut loaded = store::lock_wallets(connection, &users, &policy.daily_zone).await?;
    // After the wait for the lock: what is posted long after its time would change balances of the past.
    let now = clock.now();
    let (Some(mut wallet), Some(today)) = (loaded.wallets.remove(user.as_str()), loaded.today) else {
        return Err(LedgerError::NoSuchUser);
    };
    // The wallet may be older than its bonus.
    wallet.advance_to(now);
    let mut new_id = || TransactionId::new(clock, rng);
    let due = Due { today, daily: policy.daily_free };
    let mut effects = wallet.settle(due, &mut new_id).map_err(Refusal::from)?;
    effects.append(wallet.apply(&Command::SignupBonus { amount }, &mut new_id)?);
    let changed = [Changed { wallet: &wallet, effects: &effects }];
    Ok(store::write(connection, &changed, &[], today, now).await?)
}
