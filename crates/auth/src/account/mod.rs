//! Accounts: who a user is. Owns `auth.users`.

pub(crate) mod delete;
pub(crate) mod export;
mod low_balance;
pub mod me;
pub mod model;
pub mod moving;
pub mod profile;
pub mod register;
pub mod store;
pub mod verify;
mod ways_in;

pub use delete::Eraser;
pub use low_balance::mail_low_balance;
pub(crate) use ways_in::remove_ways_in;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new()
        .routes(routes!(register::register))
        .routes(routes!(me::me))
        .routes(routes!(profile::profile, profile::change_profile))
        .routes(routes!(delete::delete_account))
        .routes(routes!(export::export))
}
