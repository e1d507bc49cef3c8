//! Keys by which apps act for users, from their backends. Owns `auth.service_keys`.

mod create;
mod given;
mod hold;
mod known;
mod list;
pub mod model;
mod revoke;
mod store;

pub use create::create;
pub use given::{GivenServiceKey, WeakServiceKey};
pub use hold::{Held, hold};
pub use known::{ServiceKeys, write_notes};
pub use list::list;
pub use model::{
    CreatedServiceKey, NewServiceKey, PerMinute, ServiceKeyDetails, ServiceKeyHash, ServiceKeySecret,
    SomeScopes,
};
pub use revoke::revoke;

pub(crate) use known::authenticate;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(create::create_service_key, list::service_keys))
        .routes(routes!(revoke::revoke_service_key))
}
