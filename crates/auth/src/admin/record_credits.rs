//! What administrators do to wallets, written down in the transaction in which the ledger does it.

use super::act::Act;
use super::model::AdminError;
use crate::security_event::EventKind;
use mana_kernel::{TransactionId, UserId};
use sqlx::PgConnection;

/// Writes down that mana was given, or taken if the amount is negative.
///
/// # Errors
/// When the actor administrates no longer, or the database fails: then it must not be done.
pub async fn record_credits(
    connection: &mut PgConnection,
    act: &Act<'_>,
    user: &UserId,
    amount: i64,
    transaction: TransactionId,
) -> Result<(), AdminError> {
    act.hold_office(connection).await?;
    let kind = if amount < 0 {
        EventKind::CreditsTaken { amount: 0_i64.saturating_sub(amount), transaction }
    } else {
        EventKind::CreditsGranted { amount, transaction }
    };
    Ok(act.record(connection, kind, user).await?)
}
