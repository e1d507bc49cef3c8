//! Signing in with others: Google, Apple, Microsoft, GitHub, Discord and any OpenID Connect issuer. Owns `auth.accounts` and
//! `auth.finished_flows`.
//!
//! `provider.rs` has who they are, `discovery.rs` what an issuer says of itself, `id_token.rs` what is believed of a token, `flow.rs` the
//! round trip of a browser, `exchange.rs` what it brings, `arrive.rs` whose account an identity is. The other files are verbs.

mod arrive;
mod callback;
mod discovery;
mod exchange;
mod flow;
mod id_token;
mod link;
mod linked;
pub(crate) mod model;
mod native;
mod offered;
mod provider;
mod rekey;
mod start;
pub(crate) mod store;
mod unlink;

pub(crate) use linked::LinkedAccountResponse;
pub use model::{OAuthError, ProviderFault, ProviderKind};
pub use provider::{ProviderSettingsError, Providers};
pub use rekey::rekey_tokens;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(offered::offered))
        .routes(routes!(start::redirect, start::start))
        .routes(routes!(callback::callback, callback::form_callback))
        .routes(routes!(link::link))
        .routes(routes!(linked::linked))
        .routes(routes!(unlink::unlink))
        .routes(routes!(native::google_sign_in))
        .routes(routes!(native::apple_sign_in))
}
