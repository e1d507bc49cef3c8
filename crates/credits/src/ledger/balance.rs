//! `GET /api/v1/credits/balance`: what there is to spend. Gives the day's free mana when it is due.

use super::error::LedgerError;
use super::model::{Command, Posting, Stamp, Wallet};
use super::store::{self, BalanceRow};
use crate::{Credits, CreditsState};
use axum::Json;
use axum::extract::State;
use mana_kernel::{TransactionId, UserId};
use mana_platform::DbError;
use mana_platform::http::{ApiError, Caller};
use serde::Serialize;
use sqlx::PgConnection;
use time::Date;
use utoipa::ToSchema;

/// A wallet's totals. What can be spent is `balance` and `freeCreditsRemaining` together.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BalanceResponse {
    /// Paid mana.
    balance: i64,
    /// Free mana.
    free_credits_remaining: i64,
    /// Bought or given so far, without bonuses.
    total_earned: i64,
    /// Spent so far.
    total_spent: i64,
    /// Free mana that each new day adds.
    daily_free_credits: i64,
}

/// The balance
#[utoipa::path(
    get, path = "/api/v1/credits/balance", tag = "credits",
    responses((status = 200, description = "The balance", body = BalanceResponse)),
    security(("bearer" = [])),
)]
pub(crate) async fn balance(
    State(credits): State<CreditsState>,
    caller: Caller,
) -> Result<Json<BalanceResponse>, ApiError> {
    let row = match read(&credits, &caller.user_id).await? {
        Some(row) if !(row.daily_is_due && credits.policy.daily_free.is_some()) => row,
        Some(_) | None => {
            touch(&credits, &caller.user_id).await?;
            read(&credits, &caller.user_id).await?.ok_or(LedgerError::WalletMissing)?
        }
    };
    Ok(Json(BalanceResponse {
        balance: row.paid,
        free_credits_remaining: row.free,
        total_earned: row.total_earned,
        total_spent: row.total_spent,
        daily_free_credits: credits.policy.daily_free.map_or(0, mana_kernel::Amount::get),
    }))
}

async fn read(credits: &Credits, user: &UserId) -> Result<Option<BalanceRow>, DbError> {
    let mut transaction = credits.database.begin_as(user).await?;
    store::find_balance(&mut transaction, user, &credits.policy.daily_zone).await
}

/// Opens the wallet if there is none and books the daily credits if they are due.
async fn touch(credits: &Credits, user: &UserId) -> Result<(), LedgerError> {
    let mut transaction = credits.database.begin().await?;
    let (mut wallet, today) = lock_or_open(&mut transaction, credits, user).await?;
    if let Some(posting) = daily_credits(&mut wallet, credits, today) {
        let now = posting.transaction.stamp.at;
        store::write(&mut transaction, &wallet, &[posting], now).await?;
    }
    transaction.commit().await.map_err(DbError::from)?;
    Ok(())
}

/// The user's wallet, locked; opened first if an import left none.
pub(super) async fn lock_or_open(
    connection: &mut PgConnection,
    credits: &Credits,
    user: &UserId,
) -> Result<(Wallet, Date), LedgerError> {
    let zone = &credits.policy.daily_zone;
    if let Some(found) = store::lock_wallet(connection, user, zone).await? {
        return Ok(found);
    }
    store::insert_wallet(connection, user, zone, credits.clock.now()).await?;
    store::lock_wallet(connection, user, zone).await?.ok_or(LedgerError::WalletMissing)
}

/// Books the daily credits on a locked wallet if they are due. A wallet that is full to the brim goes without.
pub(super) fn daily_credits(wallet: &mut Wallet, credits: &Credits, today: Date) -> Option<Posting> {
    let amount = credits.policy.daily_free.filter(|_| wallet.daily_granted_on < today)?;
    let stamp = Stamp { id: TransactionId::new(&*credits.clock, &*credits.rng), at: credits.clock.now() };
    wallet.apply(&Command::DailyCredits { amount, day: today }, stamp).ok()
}
