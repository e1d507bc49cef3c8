//! A new password, from what somebody typed to what is stored: the one way, for whatever sets a password.

use super::model::{NewPassword, PasswordError};
use crate::Auth;
use mana_platform::http::AddressBucket;

/// The hash to store of a password that somebody wants for the account of `email`, if it meets the rules. `field` is the
/// JSON pointer to where the client sent it; `client` is whose turn it is to hash.
///
/// # Errors
/// With the reason, when the password can't be used; when too many others wait for a hash.
pub(crate) async fn choose(
    auth: &Auth,
    password: NewPassword,
    email: &str,
    field: &'static str,
    client: AddressBucket,
) -> Result<String, PasswordError> {
    let accepted = auth.password_rules.accept(password, email, field).await?;
    auth.hasher.hash(accepted, &*auth.rng, client).await
}
