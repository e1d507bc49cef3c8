//! What administrators do to wallets, written down in the transaction in which the ledger does it.

use super::act::Act;
use super::model::AdminError;
use crate::security_event::EventKind;
use mana_kernel::{TransactionId, UserId};
use sqlx::PgConnection;

/// What an administrator does to a wallet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditsDeed {
    /// Mana is given.
    Granted,
    /// Mana is taken.
    Taken,
    /// A debt is forgiven.
    Forgiven,
}

/// Writes down what was done, and how much of it.
///
/// # Errors
/// When the actor administrates no longer, or the database fails: then it must not be done.
pub async fn record_credits(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
    deed: CreditsDeed,
    amount: i64,
    transaction: TransactionId,
) -> Result<(), AdminError> {
    act.hold_office(connection).await?;
    let kind = match deed {
        CreditsDeed::Granted => EventKind::CreditsGranted { amount, transaction },
        CreditsDeed::Taken => EventKind::CreditsTaken { amount, transaction },
        CreditsDeed::Forgiven => EventKind::DebtForgiven { amount, transaction },
    };
    Ok(act.record(connection, kind, user).await?)
}
