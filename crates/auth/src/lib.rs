//! Accounts, sessions and tokens: everything in the schema `auth`.
//!
//! A folder is a feature: `mod.rs` says what it owns, `model.rs` has the rules without I/O, `store.rs` all SQL of its
//! tables, and every verb has a file of its own that reads from request to answer.

pub mod account;
pub mod admin;
mod api;
pub mod auto_top_up;
pub mod bonus;
mod browser_cookie;
pub mod legacy;
pub mod mail;
pub mod new_device;
pub mod oauth;
pub mod passkey;
pub mod password;
pub mod retention;
pub mod security_event;
pub mod service_key;
pub mod session;
pub mod token;
pub mod two_factor;
pub mod verification;
pub mod webhook;

pub use api::{
    Auth, AuthState, DataPage, OnUserDeleted, OnUserRegistered, PersonalData, Policy, PortError,
    WalletSummary, Wallets,
};

use mana_kernel::ErrorCode;
use utoipa_axum::router::OpenApiRouter;

/// Every route of the accounts, with its description.
pub fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .merge(account::routes())
        .merge(session::routes())
        .merge(password::routes())
        .merge(verification::routes())
        .merge(new_device::routes())
        .merge(oauth::routes())
        .merge(token::routes())
        .merge(security_event::routes())
        .merge(admin::routes())
        .merge(service_key::routes())
        .merge(two_factor::routes())
        .merge(passkey::routes())
        .merge(webhook::routes())
}

/// What only apps may do.
pub fn internal_routes() -> OpenApiRouter<AuthState> {
    session::internal_routes()
}

/// Has what is rare there from the start of a server on: of what begins with its first time, nobody can see that it rose.
pub fn count_from_zero() {
    security_event::count_from_zero();
    mail::count_from_zero();
    webhook::count_from_zero();
}

/// The error catalogue of the accounts.
pub fn error_codes() -> Vec<&'static ErrorCode> {
    [
        account::model::CODES,
        admin::model::CODES,
        password::CODES,
        session::model::CODES,
        session::mint::CODES,
        oauth::model::CODES,
        token::refresh::model::CODES,
        service_key::model::CODES,
        verification::model::CODES,
        two_factor::model::CODES,
        passkey::model::CODES,
        webhook::model::CODES,
    ]
    .concat()
}
