//! The keys that a running server holds in memory, parsed and opened once.

use super::chest::KeyChest;
use super::model::{KeyError, KeyState, Occasion};
use super::pair::{SigningKey, VerifyingKey};
use super::store::StoredKey;
use jsonwebtoken::jwk::Jwk;
use mana_kernel::{ErrorCode, Problem};
use mana_platform::http::codes;
use std::error::Error;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::Mutex;

/// A key that nobody here knows is looked for in the database at most this often, in seconds: tokens with made-up ids must
/// not become a flood of reads.
const ASKING_PAUSE_SECONDS: u64 = 5;

/// How long the database is waited for then: a token with an unknown id must not wait for one that hangs as other requests
/// do, and those that come meanwhile wait for the same answer.
const ASKING_LIMIT: Duration = Duration::from_secs(2);

/// Length of every id of ours, a SHA-256 in base64url.
const KID_LENGTH: usize = 43;

/// The key that signs and all that verify. Follows the database while it can; without it, what it holds goes on.
#[derive(Debug)]
pub struct KeyRing {
    chest: KeyChest,
    held: RwLock<Held>,
    /// When the database was last asked for an unknown key, and whether it answered. Held while it is asked: others wait for the same answer.
    asked: Mutex<Option<Asked>>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    at: OffsetDateTime,
    is_answered: bool,
}

/// Nobody knows just now whether a key that is not held is one of ours.
#[derive(Debug, thiserror::Error)]
#[error("the signing keys can't be read")]
pub struct KeysUnread;

impl Problem for KeysUnread {
    fn code(&self) -> &'static ErrorCode {
        &codes::UNAVAILABLE
    }
}

#[derive(Debug, Default)]
struct Held {
    signing: Option<Arc<SigningKey>>,
    /// Stored keys with a private half, by which a key that has been opened once stays so, whatever it is sealed under later.
    opened: Vec<Arc<SigningKey>>,
    /// In the order in which they are published: current, next, previous.
    verifying: Vec<Arc<VerifyingKey>>,
}

impl KeyRing {
    /// The keys of an installation; makes those that are missing.
    ///
    /// # Errors
    /// When the current key can't be opened, or the database fails.
    pub async fn open(chest: KeyChest) -> Result<Self, KeyError> {
        let (stored, _) = chest.maintain(Occasion::Start).await?;
        let held = Held::of(&chest, &stored, &Held::default())?;
        held.measure(&chest, &stored);
        if held.signing.is_none() {
            return Err(KeyError::NoKey);
        }
        Ok(Self { chest, held: RwLock::new(held), asked: Mutex::default() })
    }

    /// The pass of a running server: does what is due, and takes over what other servers did.
    ///
    /// # Errors
    /// When something is due and can't be done, or the keys can't be read. Those in memory go on.
    pub async fn keep(&self) -> Result<(), KeyError> {
        match self.chest.maintain(Occasion::Pass).await {
            Ok((stored, _)) => self.take(&stored),
            Err(error) => {
                self.reload().await?;
                Err(error)
            }
        }
    }

    /// The key that signs.
    pub(crate) fn signing(&self) -> Result<Arc<SigningKey>, KeyError> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.signing.clone().ok_or(KeyError::NoKey)
    }

    /// The public half of a key by its id.
    pub(crate) fn find(&self, kid: &str) -> Option<Arc<VerifyingKey>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.verifying.iter().find(|key| key.kid() == kid).cloned()
    }

    /// Whether a key is still one of those that verify.
    pub(crate) fn holds(&self, key: &Arc<VerifyingKey>) -> bool {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.verifying.iter().any(|held| Arc::ptr_eq(held, key))
    }

    /// Whether a key that was not known is known now: the database is asked for it, but neither often nor for long.
    ///
    /// # Errors
    /// When it did not answer now or a moment ago: a token of a key that another server has made may be good.
    pub(crate) async fn learns(&self, kid: &str) -> Result<bool, KeysUnread> {
        if kid.len() != KID_LENGTH || self.find(kid).is_some() {
            return Ok(false);
        }
        let mut asked = self.asked.lock().await;
        // Somebody may have asked while this one waited.
        if self.find(kid).is_some() {
            return Ok(true);
        }
        let now = self.chest.clock.now();
        let since = |then: OffsetDateTime| now.unix_timestamp().abs_diff(then.unix_timestamp());
        if let Some(before) = asked.filter(|before| since(before.at) < ASKING_PAUSE_SECONDS) {
            return if before.is_answered { Ok(false) } else { Err(KeysUnread) };
        }
        let answer = tokio::time::timeout(ASKING_LIMIT, self.reload()).await;
        // Not before: whoever hangs up in the middle has asked nothing, and would keep all others from asking.
        let is_answered = !matches!(answer, Err(_) | Ok(Err(KeyError::Database(_))));
        *asked = Some(Asked { at: now, is_answered });
        match answer {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let cause: &(dyn Error + 'static) = &error;
                tracing::warn!(cause, "a token names an unknown key, and the signing keys can't be read");
            }
            Err(_) => tracing::warn!(
                "a token names an unknown key, and the database does not say within {ASKING_LIMIT:?} whether it is one"
            ),
        }
        if is_answered { Ok(self.find(kid).is_some()) } else { Err(KeysUnread) }
    }

    /// All public halves, in the order in which they are published.
    pub(crate) fn public(&self) -> Vec<Jwk> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.verifying.iter().map(|key| key.jwk().clone()).collect()
    }

    async fn reload(&self) -> Result<(), KeyError> {
        self.take(&self.chest.read().await?)
    }

    fn take(&self, stored: &[StoredKey]) -> Result<(), KeyError> {
        // Opened while others read: only the exchange keeps them waiting.
        let held = Held::of(&self.chest, stored, &self.held.read().unwrap_or_else(PoisonError::into_inner))?;
        held.measure(&self.chest, stored);
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }
}

impl Held {
    /// What is to be held of the stored keys. What was held before is not parsed or opened again.
    fn of(chest: &KeyChest, stored: &[StoredKey], before: &Self) -> Result<Self, KeyError> {
        let now = chest.clock.now();
        let mut held = Self { signing: chest.given.clone(), ..Self::default() };
        if let Some(given) = &chest.given {
            held.verifying.push(before.verifying(given.kid(), || given.verifying())?);
        }
        for state in [KeyState::Current, KeyState::Next, KeyState::Previous] {
            for key in stored.iter().filter(|key| key.life().state(now) == state).rev() {
                if chest.given.as_ref().is_none_or(|given| given.kid() != key.kid) {
                    held.verifying.push(before.verifying(&key.kid, || key.public())?);
                }
                let opened = before.opened.iter().find(|opened| opened.kid() == key.kid).cloned();
                let opened = match opened.filter(|_| key.private_key_sealed.is_some()) {
                    Some(opened) => Some(opened),
                    // Who keeps the keys up to date has said that it can't be opened.
                    None => chest.open(key).unwrap_or_default().map(Arc::new),
                };
                if state == KeyState::Current && held.signing.is_none() {
                    held.signing.clone_from(&opened);
                }
                held.opened.extend(opened);
            }
        }
        Ok(held)
    }

    /// How old the key is that signs, and how many of those that should sign now or next can't be opened here.
    fn measure(&self, chest: &KeyChest, stored: &[StoredKey]) {
        let now = chest.clock.now();
        let of_state = |state| stored.iter().filter(move |key| key.life().state(now) == state);
        if let Some(activated_at) = of_state(KeyState::Current).find_map(|key| key.activated_at) {
            let age = now.unix_timestamp().saturating_sub(activated_at.unix_timestamp());
            let age = u32::try_from(age).unwrap_or(0);
            metrics::gauge!("signing_key_age_seconds").set(age);
        }
        let limit = chest.policy.rotation.map_or(0, |rotation| rotation.as_secs());
        metrics::gauge!("signing_key_rotation_seconds").set(u32::try_from(limit).unwrap_or(u32::MAX));
        let is_closed = |key: &&StoredKey| {
            key.private_key_sealed.is_some() && !self.opened.iter().any(|opened| opened.kid() == key.kid)
        };
        let closed = of_state(KeyState::Current).chain(of_state(KeyState::Next)).filter(is_closed).count();
        metrics::gauge!("signing_keys_closed").set(u32::try_from(closed).unwrap_or(u32::MAX));
    }

    fn verifying(
        &self,
        kid: &str,
        parse: impl FnOnce() -> Result<VerifyingKey, KeyError>,
    ) -> Result<Arc<VerifyingKey>, KeyError> {
        match self.verifying.iter().find(|key| key.kid() == kid) {
            Some(key) => Ok(Arc::clone(key)),
            None => Ok(Arc::new(parse()?)),
        }
    }
}
