//! Credits: everything in the schema `credits`.
//!
//! Every change of a balance goes one way: a [`ledger::model::Command`] is applied to a loaded wallet by a pure state
//! machine, and what that posts is written in the caller's open transaction.

mod api;
pub mod auto_top_up;
mod credits_event;
pub mod idempotency;
pub mod ledger;
pub mod package;
pub mod personal_data;
pub mod purchase;
pub mod stripe;
pub mod webhook;

pub use api::{
    AdminAct, AdminLog, Administrator, Credits, CreditsState, Deed, HeldServices, Policy, PortError,
    SalesDeed, SessionGuard,
};
pub use credits_event::{ChargedBy, CreditsEvent, OnCreditsEvent};

use mana_kernel::ErrorCode;
use utoipa_axum::router::OpenApiRouter;

/// Every route of the credits, with its description.
pub fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new()
        .merge(ledger::routes())
        .merge(package::routes())
        .merge(purchase::routes())
        .merge(auto_top_up::routes())
        .merge(webhook::routes())
}

/// Routes for services of the same network. Those under which older ones ask are described as what they stand for.
pub fn internal_routes() -> OpenApiRouter<CreditsState> {
    ledger::internal_routes()
}

/// Has what is rare there from the start of a server on: of what begins with its first time, nobody can see that it rose.
pub fn count_from_zero() {
    metrics::counter!("ledger_verify_wallets_total").increment(0);
    metrics::counter!("payments_lost_events_total").increment(0);
    auto_top_up::count_from_zero();
    stripe::client::count_from_zero();
}

/// The error catalogue of the credits.
pub fn error_codes() -> Vec<&'static ErrorCode> {
    let package: &[&'static ErrorCode] = &[&package::model::BONUS_BEYOND_CREDITS];
    [ledger::error::CODES, idempotency::CODES, package, purchase::model::CODES, webhook::CODES].concat()
}
