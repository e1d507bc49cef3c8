//! Credits: everything in the schema `credits`.
//!
//! Every change of a balance goes one way: a [`ledger::model::Command`] is applied to a loaded wallet by a pure state
//! machine, and what that posts is written in the caller's open transaction.

mod api;
pub mod idempotency;
pub mod ledger;
pub mod package;
pub mod personal_data;
pub mod purchase;
pub mod stripe;
pub mod webhook;

pub use api::{
    AdminAct, AdminLog, Administrator, Credits, CreditsState, LiveSessions, Policy, PortError, SessionGuard,
};

use mana_kernel::ErrorCode;
use utoipa_axum::router::OpenApiRouter;

/// Every route of the credits, with its description.
pub fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new()
        .merge(ledger::routes())
        .merge(package::routes())
        .merge(purchase::routes())
        .merge(webhook::routes())
}

/// The error catalogue of the credits.
pub fn error_codes() -> Vec<&'static ErrorCode> {
    let package: &[&'static ErrorCode] = &[&package::model::BONUS_BEYOND_CREDITS];
    [ledger::error::CODES, idempotency::CODES, package, purchase::model::CODES, webhook::CODES].concat()
}
