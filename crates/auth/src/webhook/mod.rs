//! What apps are told of, at endpoints of theirs. Owns `auth.webhook_endpoints`, `auth.webhook_secrets`, `auth.webhook_events` and
//! `auth.webhook_deliveries`.
//!
//! What happens is written down in the transaction in which it happens, with a delivery for each endpoint that wants to hear of it
//! ([`announce`]). Deliveries are made by a pass of their own ([`deliver_due`]), one endpoint at a time: whoever claims an endpoint has it
//! to itself, so that one that hangs holds up nobody else, and two servers that live never tell it the same thing at once.

mod add;
mod announce;
mod deliver;
mod deliveries;
mod enable;
mod list;
mod listeners;
mod measure;
pub mod model;
mod rekey;
mod remove;
mod replay;
mod rotate_secret;
mod seal;
mod signature;
pub(crate) mod store;

pub use add::add;
pub use announce::{AppEvent, announce};
pub(crate) use deliver::count_from_zero;
pub use deliver::deliver_due;
pub use deliveries::list_deliveries;
pub use enable::enable;
pub use list::list;
pub use listeners::Listeners;
pub use measure::measure;
pub use rekey::rekey_webhook_secrets;
pub use remove::remove;
pub use replay::{EventId, ReplayRequest, Replayed, replay};
pub use rotate_secret::{OverlapHours, rotate_secret};
pub use store::WebhookDelivery;

use crate::AuthState;
use mana_platform::Outbound;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What it takes to tell apps of things.
#[derive(Debug)]
pub struct Webhooks {
    /// The way to their endpoints.
    pub outbound: Outbound,
    /// Whether anybody listens, as far as is known without asking.
    pub listeners: Arc<Listeners>,
}

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(add::add_webhook, list::webhooks))
        .routes(routes!(remove::remove_webhook))
        .routes(routes!(enable::enable_webhook))
        .routes(routes!(rotate_secret::rotate_webhook_secret))
        .routes(routes!(deliveries::webhook_deliveries))
        .routes(routes!(replay::replay_webhook))
}
