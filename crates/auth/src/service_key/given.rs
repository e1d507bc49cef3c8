//! The key that the environment gives: for clients that were made for a service which had one key.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use mana_kernel::Line;
use mana_kernel::secret::sha256;
use mana_platform::http::{KeyApp, Scope, Scopes, ServiceKey};
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;

/// What it is called where a key's id stands.
pub(super) const ID: &str = "environment";
/// The app it acts as where a request is about none, and names none in its header: older clients don't.
const APP: &str = "service";

/// `MANA_CORE_SERVICE_KEY` can't be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "MANA_CORE_SERVICE_KEY must have 16 characters at least, and none that a header can't carry: take 32 random ones, as \
     `openssl rand -hex 16` prints, or leave it unset and make keys with `mana-core-auth service-keys create`"
)]
pub struct WeakServiceKey;

/// `MANA_CORE_SERVICE_KEY`: kept as its hash.
#[derive(Debug)]
pub struct GivenServiceKey {
    hash: [u8; 32],
    key: Arc<ServiceKey>,
}

impl GivenServiceKey {
    /// Reads the setting. `limit_per_minute` is for all apps together.
    ///
    /// # Errors
    /// When it is too short to be a secret, or can't be sent.
    pub fn new(secret: &SecretString, limit_per_minute: Option<u32>) -> Result<Self, WeakServiceKey> {
        let secret = secret.expose_secret();
        if secret.len() < 16 || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WeakServiceKey);
        }
        let key = ServiceKey {
            id: ID.to_owned(),
            app: KeyApp::Any { otherwise: Line::try_from(APP.to_owned()).ok() },
            scopes: Scopes::from([
                Scope::CreditsRead,
                Scope::CreditsSpend,
                Scope::CreditsRefund,
                Scope::CreditsGrant,
                Scope::UsageRead,
            ]),
            limit_per_minute,
        };
        Ok(Self { hash: sha256(secret.as_bytes()), key: Arc::new(key) })
    }

    /// The key, if that is what `text` is. Hashes are compared, in constant time, so that an answer tells neither its length nor
    /// how far a guess is right.
    pub(super) fn find(&self, text: &str) -> Option<Arc<ServiceKey>> {
        verify_slices_are_equal(&sha256(text.as_bytes()), &self.hash).ok().map(|()| Arc::clone(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_key_is_16_characters_that_a_header_carries() {
        let given = |text: &str| GivenServiceKey::new(&SecretString::from(text.to_owned()), None);
        for weak in ["", "fifteen-letters", "sixteen letters ", "sixteen-letters\u{e4}"] {
            assert_eq!(given(weak).err(), Some(WeakServiceKey), "{weak}");
        }
        let given = given("sixteen-letters!").unwrap();
        assert!(given.find("sixteen-letters!").is_some());
        for other in ["", "sixteen-letters", "sixteen-letters!!", "Sixteen-letters!"] {
            assert!(given.find(other).is_none(), "{other}");
        }
        assert!(!format!("{given:?}").contains("sixteen"));
    }
}
