//! Sessions: sign-ins on devices, and the cookie that shares one among apps. Owns `auth.sessions` and `auth.revocations`.

pub(crate) mod check_password;
pub mod cookie;
pub mod current;
pub mod device;
pub(crate) mod end;
pub(crate) mod fresh;
mod get_session;
pub(crate) mod hold;
pub mod list;
pub mod liveness;
pub mod login;
pub mod logout;
pub(crate) mod mint;
pub mod model;
pub(crate) mod open;
pub(crate) mod proof;
pub mod revoke;
mod session_to_token;
pub(crate) mod sign_in;
mod sign_in_email;
mod sign_out;
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
        .routes(routes!(sign_in_email::sign_in_email))
        .routes(routes!(get_session::get_session))
        .routes(routes!(sign_out::sign_out))
        .routes(routes!(session_to_token::session_to_token))
}

/// What only apps may do.
pub(crate) fn internal_routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new().routes(routes!(mint::mint))
}
