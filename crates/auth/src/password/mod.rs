//! Passwords: their rules and their hashing. Owns `auth.passwords`.

mod argon2id;
mod fair_queue;
mod hasher;
mod model;
pub(crate) mod store;

pub use hasher::Hasher;
pub use model::{CODES, NewPassword, PasswordError};
