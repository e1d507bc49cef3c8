//! What Stripe sends. Owns `credits.stripe_events`.
//!
//! A delivery is verified, stored and acknowledged; it is worked on from the table. What it says is a hint: it tells which
//! order to look at, and [`crate::purchase`] looks.

mod receive;
pub(crate) mod store;
mod work;

pub(crate) use work::catch_up;
pub use work::work;

use crate::CreditsState;
use axum::extract::DefaultBodyLimit;
use mana_kernel::ErrorCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<CreditsState> {
    OpenApiRouter::new()
        .routes(routes!(receive::receive_event))
        .layer(DefaultBodyLimit::max(receive::BODY_LIMIT))
}

/// The catalogue of this feature.
pub static CODES: &[&ErrorCode] = &[&receive::NO_SECRET, &receive::INVALID_SIGNATURE, &receive::NOT_AN_EVENT];
