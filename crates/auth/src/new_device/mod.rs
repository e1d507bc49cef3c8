//! A sign-in from a device that the account was not used from before, and a change to what opens it: told to the owner, who can end the session
//! by one click.
//! Owns `auth.disown_tokens`.

mod announce;
mod disown;
mod model;
pub(crate) mod store;
mod void;
mod warn;

pub(crate) use announce::announce_if_new;
pub(crate) use model::EarlierSignIn;
pub(crate) use void::void_with_address;
pub(crate) use warn::warn;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new().routes(routes!(disown::page, disown::submit))
}
