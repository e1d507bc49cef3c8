//! Passwords: their rules and their hashing. Owns `auth.passwords` and `auth.imported_passwords`.

mod change;
mod choose;
mod fair_queue;
mod hasher;
mod known;
mod model;
mod own_words;
mod range;
mod rules;
mod scheme;
pub(crate) mod store;
mod upgrade;
mod workspace;

pub(crate) use choose::choose;
pub use hasher::Hasher;
pub(crate) use hasher::Verdict;
pub use known::{BlocklistError, KnownPasswords};
pub use model::{CODES, NewPassword, PasswordError, Refusal};
pub use range::{InvalidRange, RangeLookup};
pub use rules::PasswordRules;
pub use scheme::HashError;
pub(crate) use scheme::{Scheme, StoredHash};
pub(crate) use upgrade::upgrade;

use crate::AuthState;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) fn routes() -> OpenApiRouter<AuthState> {
    OpenApiRouter::new().routes(routes!(change::change_password))
}
