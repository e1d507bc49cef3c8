//! The ledger: wallets, what they were given, and every transaction. Owns `credits.balances`, `credits.grants`,
//! `credits.transactions` and `credits.entries`.

pub mod balance;
pub mod chain;
pub mod error;
pub mod model;
pub mod registration;
pub mod spend;
pub(crate) mod store;
pub mod transactions;

use crate::CreditsState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new()
        .routes(routes!(balance::balance))
        .routes(routes!(spend::spend))
        .routes(routes!(transactions::transactions))
}
