//! Tokens whose signature was found good. Apps show the same token with each request for as long as it lives, and to
//! verify it costs more than all else that such a request needs.
//!
//! Remembered is only that these bytes are signed by that key and what they claim. Expiry, issuer, session and whether
//! the key is still one of ours are looked at each time.

use super::access::Claims;
use super::keys::{KeyRing, VerifyingKey};
use mana_kernel::secret::sha256;
use moka::sync::Cache;
use std::sync::Arc;
use std::time::Duration;

/// Tokens remembered at most; some 700 bytes each.
const CAPACITY: u64 = 50_000;
/// A token that is not shown for this long is forgotten.
const IDLE: Duration = Duration::from_mins(5);

/// What this replica remembers of tokens.
#[derive(Debug)]
pub struct IntactTokens(Cache<[u8; 32], Arc<IntactToken>>);

/// What a token claims, and which key vouches for it.
#[derive(Debug)]
pub(super) struct IntactToken {
    pub(super) claims: Claims,
    pub(super) key: Arc<VerifyingKey>,
}

impl IntactTokens {
    /// The token, if it is remembered and its key is still held; else what `verify` says of it.
    pub(super) fn recall_or<E>(
        &self,
        token: &str,
        keys: &KeyRing,
        verify: impl FnOnce() -> Result<IntactToken, E>,
    ) -> Result<Arc<IntactToken>, E> {
        let digest = sha256(token.as_bytes());
        let recalled = self.0.get(&digest).filter(|intact| keys.holds(&intact.key));
        if let Some(intact) = recalled {
            return Ok(intact);
        }
        let intact = Arc::new(verify()?);
        self.0.insert(digest, Arc::clone(&intact));
        Ok(intact)
    }
}

impl Default for IntactTokens {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).time_to_idle(IDLE).build())
    }
}
