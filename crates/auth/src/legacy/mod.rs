//! The way of accounts from the TypeScript service that this one replaces: `import legacy`.
//!
//! An account comes with its id, its password's hash, whom it is known as at other services, and its second factor. What can't come
//! is not made weaker: an account whose factor can't be opened still asks for one.

mod bring;
mod model;
mod sealed;

pub use bring::{Bring, BringError, Brought, Outcome};
pub use model::{OldAccount, OldEvent, OldFactor, OldPassword, OldUser, With};
