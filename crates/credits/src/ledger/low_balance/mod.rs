//! `GET` and `PUT /api/v1/credits/low-balance`: below which balance its owner wants to be told, and whether by mail. Owns
//! `credits.low_balance_notices`.
//!
//! The threshold stands in the wallet's row, so that the ledger sees without asking whether a change takes the wallet below it. Once for each
//! time: the wallet has to be above it before it can fall below it again. Apps are told in the same transaction; for the mail a notice is
//! left, and gone in the transaction that writes the mail.

pub(crate) mod store;

pub use store::{LowBalanceNotice, take_notices};

use super::store::insert_wallets;
use crate::CreditsState;
use axum::Json;
use axum::extract::State;
use mana_kernel::Amount;
use mana_platform::http::{ApiError, Caller, Language, ProblemBody, Valid};
use mana_platform::{DbError, hold_briefly};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// When the owner of a wallet wants to be told that little is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct LowBalanceSetting {
    /// As soon as less than this can be spent; null for never.
    #[serde(default)]
    below: Option<Amount>,
    /// Whether by mail, in the language of the request that says so. Apps that ask for `credits.low` are told either way.
    #[serde(default)]
    mail: bool,
}

/// When the caller wants to be told of a low balance
#[utoipa::path(
    get, path = "/api/v1/credits/low-balance", tag = "credits",
    responses((status = 200, description = "The setting; `below` is null until it is set", body = LowBalanceSetting)),
    security(("bearer" = [])),
)]
pub(crate) async fn low_balance(
    State(credits): State<CreditsState>,
    caller: Caller,
) -> Result<Json<LowBalanceSetting>, ApiError> {
    let mut transaction = credits.database.begin_as(&caller.user_id).await?;
    let found = store::find_setting(&mut transaction, &caller.user_id).await?;
    let (below, mail) = found.unwrap_or_default();
    let below =
        below.map(Amount::try_from).transpose().map_err(|_| DbError::unreadable("credits.balances"))?;
    Ok(Json(LowBalanceSetting { below, mail }))
}

/// Says when the caller wants to be told of a low balance
///
/// Once each time that the balance falls below it; not if it is below already.
#[utoipa::path(
    put, path = "/api/v1/credits/low-balance", tag = "credits",
    request_body = LowBalanceSetting,
    responses(
        (status = 200, description = "The setting", body = LowBalanceSetting),
        (status = 403, description = "Sent by a browser for a page of a foreign site", body = ProblemBody),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn set_low_balance(
    State(credits): State<CreditsState>,
    caller: Caller,
    language: Language,
    Valid(setting): Valid<LowBalanceSetting>,
) -> Result<Json<LowBalanceSetting>, ApiError> {
    let LowBalanceSetting { below, mail } = setting;
    let user = &caller.user_id;
    let mut transaction = credits.database.begin().await?;
    // An import leaves users without a wallet.
    let users = [user.as_str().to_owned()];
    hold_briefly(&mut transaction).await?;
    insert_wallets(&mut transaction, &users, &credits.policy.daily_zone, credits.clock.now()).await?;
    store::update_setting(&mut transaction, user, below.map(Amount::get), mail, language.tag()).await?;
    transaction.commit().await?;
    Ok(Json(setting))
}
