//! The ledger: wallets, what they were given, what is set aside of it, and every transaction. Owns `credits.balances`,
//! `credits.grants`, `credits.transactions`, `credits.holds` and `credits.usage_stats`; what proves them is in [`verify`] and
//! [`root`], and how they come from the service that this one replaces is in [`legacy`].
//!
//! A handler gives an order to the [`pipeline`], which commits it in a [`batch`] with others that wait: the store
//! locks their wallets, the state machine of [`model`] decides, the store writes.

pub mod adjust;
pub mod balance;
pub mod batch;
pub mod chain;
mod charge;
pub mod closing;
pub mod error;
pub mod give;
mod history;
pub mod hold;
pub mod legacy;
pub mod low_balance;
pub mod model;
pub mod moving;
pub mod pipeline;
mod queue;
pub mod reader;
mod recall;
pub mod record;
pub mod refund;
pub mod registration;
pub mod root;
mod services;
#[cfg(test)]
mod simulation;
pub mod spend;
pub mod spend_batch;
pub(crate) mod store;
pub mod transactions;
pub mod usage;
mod usage_of_app;
pub mod verify;

pub use batch::Books;
pub use charge::Metadata;
pub use pipeline::Ledger;
pub use reader::Reader;

use crate::CreditsState;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new()
        .routes(routes!(balance::balance))
        .routes(routes!(balance::balance_of_user))
        .routes(routes!(spend::spend))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(spend_batch::spend_batch))
                .layer(DefaultBodyLimit::max(spend_batch::BODY_LIMIT)),
        )
        .routes(routes!(adjust::grant_credits))
        .routes(routes!(adjust::take_credits))
        .routes(routes!(adjust::forgive_debt))
        .routes(routes!(low_balance::low_balance, low_balance::set_low_balance))
        .routes(routes!(usage::usage))
        .routes(routes!(usage::usage_of_all))
        .routes(routes!(hold::open::open_hold))
        .routes(routes!(hold::find::find_hold))
        .routes(routes!(hold::capture::capture_hold))
        .routes(routes!(hold::release::release_hold))
        .routes(routes!(hold::extend::extend_hold))
        .routes(routes!(refund::refund))
        .routes(routes!(transactions::transactions))
}

/// What only apps may do, and, where older services look for it, whatever else they may: described at its other path.
pub(crate) fn internal_routes() -> OpenApiRouter<CreditsState> {
    let batch = post(spend_batch::spend_batch).layer(DefaultBodyLimit::max(spend_batch::BODY_LIMIT));
    OpenApiRouter::new()
        .routes(routes!(give::give))
        .routes(routes!(usage_of_app::usage_of_app))
        .route("/api/v1/internal/credits/balance/{userId}", get(balance::balance_of_user))
        .route("/api/v1/internal/credits/use", post(spend::spend))
        .route("/api/v1/internal/credits/use/batch", batch)
        .route("/api/v1/internal/credits/refund", post(refund::refund))
        .route("/api/v1/internal/credits/holds", post(hold::open::open_hold))
        .route("/api/v1/internal/credits/holds/{id}", get(hold::find::find_hold))
        .route("/api/v1/internal/credits/holds/{id}/capture", post(hold::capture::capture_hold))
        .route("/api/v1/internal/credits/holds/{id}/release", post(hold::release::release_hold))
        .route("/api/v1/internal/credits/holds/{id}/extend", post(hold::extend::extend_hold))
}
