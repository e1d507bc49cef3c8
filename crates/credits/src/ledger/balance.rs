//! `GET /api/v1/credits/balance`: what there is to spend. Gives the day's free mana when it is due.

use super::batch::{Actor, Order, Outcome};
use super::charge::RequestContext;
use super::error::LedgerError;
use super::history::{self, PastBalance};
use super::model::{Refusal, Wallet};
use super::store;
use crate::idempotency::Answer;
use crate::{Credits, CreditsState};
use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderValue, StatusCode, header};
use mana_kernel::{Amount, Clock, Timestamp, UserId};
use mana_platform::http::{ApiError, Caller, Parameters, ProblemBody, Scope, ServiceCaller, codes};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use time::Date;
use utoipa::{IntoParams, ToSchema};

/// A wallet's totals. What can be spent is `balance` and `freeCreditsRemaining` together.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BalanceResponse {
    /// Paid mana.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance: i64,
    /// Free mana.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    free_credits_remaining: i64,
    /// Bought or given so far, without bonuses.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    total_earned: i64,
    /// Spent so far, less what was given back.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    total_spent: i64,
    /// Free mana that each new day adds.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    daily_free_credits: i64,
    /// Set aside by open holds; not in the two above.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    held_credits: i64,
    /// Owed because a payment was taken back and what it bought is spent. Absent in a balance of the past.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    debt_credits: Option<i64>,
}

/// Which moment.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query, rename_all = "camelCase")]
pub(crate) struct BalanceParameters {
    /// A time at least 30 seconds ago (RFC 3339): the balance as it was then. What is asked once never changes.
    #[param(format = DateTime)]
    as_of: Option<String>,
}

type Tagged = ([(header::HeaderName, HeaderValue); 1], Json<BalanceResponse>);

/// The balance
///
/// Its `ETag` names this state of the wallet: a spend with it as `If-Match` is refused if anything has changed since.
#[utoipa::path(
    get, path = "/api/v1/credits/balance", tag = "credits",
    params(BalanceParameters),
    responses((status = 200, description = "The balance", body = BalanceResponse)),
    security(("bearer" = [])),
)]
pub(crate) async fn balance(
    State(credits): State<CreditsState>,
    caller: Caller,
    context: RequestContext,
    Parameters(parameters): Parameters<BalanceParameters>,
) -> Result<Tagged, ApiError> {
    let user = caller.user_id.clone();
    match parameters.as_of {
        Some(text) => Ok(past(&credits, &user, &text).await?),
        None => Ok(current(&credits, &user, Actor::Session(caller), context).await?),
    }
}

/// A user's balance
///
/// For service keys with the scope `credits:read`; the same is at `/api/v1/internal/credits/balance/{userId}`.
#[utoipa::path(
    get, path = "/api/v1/credits/balance/{userId}", tag = "credits",
    params(("userId" = String, Path, description = "The user", max_length = 64), BalanceParameters),
    responses(
        (status = 200, description = "The balance", body = BalanceResponse),
        (status = 404, description = "No such user", body = ProblemBody),
    ),
    security(("serviceKey" = [])),
)]
pub(crate) async fn balance_of_user(
    State(credits): State<CreditsState>,
    service: ServiceCaller,
    Path(user): Path<String>,
    context: RequestContext,
    Parameters(parameters): Parameters<BalanceParameters>,
) -> Result<Tagged, ApiError> {
    service.require(Scope::CreditsRead)?;
    service.app()?;
    let user: UserId = user.parse().map_err(|_| LedgerError::NoSuchUser)?;
    match parameters.as_of {
        Some(text) => Ok(past(&credits, &user, &text).await?),
        None => Ok(current(&credits, &user, Actor::Service(service.key_id), context).await?),
    }
}

async fn current(
    credits: &Credits,
    user: &UserId,
    actor: Actor,
    context: RequestContext,
) -> Result<Tagged, LedgerError> {
    let is_settled = |found: &(Wallet, Date)| {
        let (wallet, today) = found;
        wallet.is_closed || credits.policy.daily_free.is_none() || wallet.daily_granted_on >= *today
    };
    let (wallet, _) = match credits.reader.find_wallet(user).await?.filter(is_settled) {
        Some(found) => found,
        None => {
            touch(credits, user, actor, context).await?;
            credits.reader.find_wallet(user).await?.ok_or(LedgerError::NoSuchUser)?
        }
    };
    answer(credits, &wallet)
}

/// Has done what is due by itself: the wallet is opened if there is none, and the day's credits are booked.
async fn touch(
    credits: &Credits,
    user: &UserId,
    actor: Actor,
    context: RequestContext,
) -> Result<(), LedgerError> {
    let order = Order {
        user: user.clone(),
        actor,
        key: None,
        if_version: None,
        request: context.id,
        command: None,
        is_dry_run: false,
        render: touched,
    };
    credits.ledger.submit(order).await.map(drop)
}

fn touched(_: &Outcome<'_>) -> Result<Answer, serde_json::Error> {
    Answer::json(StatusCode::OK, &())
}

/// What is past its time is not shown, booked or not.
fn answer(credits: &Credits, wallet: &Wallet) -> Result<Tagged, LedgerError> {
    let mut shown = wallet.clone();
    shown.advance_to(credits.clock.now());
    shown.release_overdue().map_err(Refusal::from)?;
    let totals = shown.spendable(shown.changed_at).map_err(Refusal::from)?;
    let etag = HeaderValue::from_str(&format!("\"{}\"", wallet.version))
        .unwrap_or_else(|_| HeaderValue::from_static("\"\""));
    let response = BalanceResponse {
        balance: totals.paid.get(),
        free_credits_remaining: totals.free.get(),
        total_earned: wallet.total_earned.get(),
        total_spent: wallet.total_spent.get(),
        daily_free_credits: credits.policy.daily_free.map_or(0, Amount::get),
        held_credits: totals.held.get(),
        debt_credits: Some(wallet.debt.get()),
    };
    Ok(([(header::ETAG, etag)], Json(response)))
}

async fn past(credits: &Credits, user: &UserId, text: &str) -> Result<Tagged, ApiError> {
    let refuse = |detail: &str| ApiError::new(&codes::INVALID_QUERY).with_detail(format!("asOf {detail}"));
    let at = text.parse::<Timestamp>().map_err(|error| refuse(&error.to_string()))?.get();
    if at > credits.clock.now().saturating_sub(history::SETTLED_AFTER) {
        return Err(refuse("must be at least 30 seconds ago"));
    }
    let mut transaction = credits.database.begin().await?;
    let past = history::find_past_balance(&mut transaction, user, at).await?;
    let PastBalance { free, paid, held, total_earned, total_spent } = past.ok_or(LedgerError::NoSuchUser)?;
    let response = BalanceResponse {
        balance: paid,
        free_credits_remaining: free,
        total_earned,
        total_spent,
        daily_free_credits: credits.policy.daily_free.map_or(0, Amount::get),
        held_credits: held,
        debt_credits: None,
    };
    // A past balance is no state that a spend could be bound to.
    Ok(([(header::ETAG, HeaderValue::from_static("W/\"past\""))], Json(response)))
}

/// What is in a wallet.
#[derive(Debug, Clone, Copy)]
pub struct WalletTotals {
    /// Paid mana that can be spent.
    pub paid: i64,
    /// Free mana that can be spent.
    pub free: i64,
    /// Set aside by open holds.
    pub held: i64,
    /// Bought or given so far, without bonuses.
    pub total_earned: i64,
    /// Spent so far, less what was given back.
    pub total_spent: i64,
}

/// What is in a user's wallet, for whoever may look into it; none without a wallet. Books nothing, so that daily credits that nobody
/// has asked for yet are not in it.
///
/// # Errors
/// When the database fails.
pub async fn find_totals(
    connection: &mut PgConnection,
    clock: &dyn Clock,
    zone: &str,
    user: &UserId,
) -> Result<Option<WalletTotals>, LedgerError> {
    let users = [user.as_str().to_owned()];
    let Some(mut wallet) = store::find_wallets(connection, &users, zone).await?.wallets.remove(user.as_str())
    else {
        return Ok(None);
    };
    wallet.advance_to(clock.now());
    wallet.release_overdue().map_err(Refusal::from)?;
    let totals = wallet.spendable(wallet.changed_at).map_err(Refusal::from)?;
    Ok(Some(WalletTotals {
        paid: totals.paid.get(),
        free: totals.free.get(),
        held: totals.held.get(),
        total_earned: wallet.total_earned.get(),
        total_spent: wallet.total_spent.get(),
    }))
}
