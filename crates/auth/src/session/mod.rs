//! Sessions: sign-ins on devices. Owns `auth.sessions`.

pub mod cookie;
pub mod current;
pub mod device;
pub mod list;
pub mod login;
pub mod logout;
pub mod model;
pub mod revoke;
pub(crate) mod store;

pub use store::hold_live;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(login::login))
        .routes(routes!(logout::logout))
        .routes(routes!(current::session))
        .routes(routes!(list::sessions, revoke::revoke_others))
        .routes(routes!(revoke::revoke))
}
