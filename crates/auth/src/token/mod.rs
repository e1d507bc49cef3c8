//! Tokens: access tokens (JWT) and their keys, refresh tokens and their chains. Owns `auth.jwks` and
//! `auth.refresh_chains`.

pub mod access;
mod app_id;
pub(crate) mod compact;
pub mod intact;
pub mod jwks;
pub mod keys;
pub mod refresh;
pub mod root_secret;
pub mod sealed_rows;
pub mod validate;

pub use app_id::AppId;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(refresh::refresh))
        .routes(routes!(validate::validate))
        .routes(routes!(jwks::jwks))
        .routes(routes!(jwks::well_known_jwks))
}
