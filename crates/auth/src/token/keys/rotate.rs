//! `keys rotate`: the next key becomes the current one now.

use super::KeyError;
use super::chest::KeyChest;
use super::model::{self, Occasion};
use time::OffsetDateTime;

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotation {
    /// The key that signed until now.
    pub old: String,
    /// The key that signs from now on.
    pub new: String,
    /// Until when the old one is served to those who verify.
    pub old_served_until: OffsetDateTime,
}

impl KeyChest {
    /// Makes the next key the current one. With `force` also one that nobody knows yet, and in place of keys that can't be
    /// opened.
    ///
    /// # Errors
    /// When the current key is the environment's; and without `force`, when the next key has not been published for long
    /// enough or one of the two can't be opened.
    pub async fn rotate(&self, force: bool) -> Result<Rotation, KeyError> {
        if self.given.is_some() {
            return Err(KeyError::Environment);
        }
        let (_, rotation) = self.maintain(Occasion::Command { force }).await?;
        // Without a next key there is one now, and it can follow in a while.
        rotation.ok_or_else(|| KeyError::TooSoon(model::known_from(self.clock.now())))
    }
}
