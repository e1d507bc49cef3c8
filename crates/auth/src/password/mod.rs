//! Passwords: their rules and their hashing. Owns `auth.passwords`.

mod argon2id;
mod change;
mod fair_queue;
mod hasher;
mod model;
pub(crate) mod store;

pub use hasher::Hasher;
pub use model::{CODES, NewPassword, PasswordError};

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new().routes(routes!(change::change_password))
}
