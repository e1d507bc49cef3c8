//! Accounts: who a user is. Owns `auth.users`.

pub mod me;
pub mod model;
pub mod moving;
pub mod profile;
pub mod register;
pub mod store;
pub mod verify;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(register::register))
        .routes(routes!(me::me))
        .routes(routes!(profile::profile))
}
