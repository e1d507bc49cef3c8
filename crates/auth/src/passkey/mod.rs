//! Passkeys (WebAuthn): added, listed, named and removed by their owner, and what is signed in with. Owns `auth.passkeys` and
//! `auth.passkey_challenges`.
//!
//! What an authenticator signed is judged by `ceremony.rs`, without I/O; `client_data.rs`, `authenticator_data.rs` and `public_key.rs` read
//! the three things that it judges.

mod add;
mod add_options;
pub(crate) mod assertion;
mod authenticator_data;
mod cbor;
mod ceremony;
pub(crate) mod challenge;
mod client_data;
mod encoded;
mod manage;
pub(crate) mod model;
mod public_key;
mod related_origins;
mod sign_in;
pub(crate) mod sign_in_options;
pub(crate) mod store;

pub use model::{InvalidRelyingParty, RelyingParty};

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(add_options::registration_options))
        .routes(routes!(manage::list, add::add))
        .routes(routes!(manage::rename, manage::remove))
        .routes(routes!(sign_in_options::sign_in_options))
        .routes(routes!(sign_in::sign_in_with_passkey))
        .routes(routes!(related_origins::related_origins))
}
