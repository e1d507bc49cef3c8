//! Which keys are good. What the database said is remembered for a few seconds, so that not each request of a busy backend reads
//! it; when keys are used is written down from time to time.

use super::given::GivenServiceKey;
use super::model::{ServiceKeyHash, ServiceKeySecret, USE_STEP};
use super::store;
use crate::Auth;
use mana_kernel::SteadyClock;
use mana_platform::DbError;
use mana_platform::http::{ApiError, ServiceKey, codes};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use time::OffsetDateTime;

/// A revoked key is refused everywhere within this time.
const REMEMBER_FOR: Duration = Duration::from_secs(5);

/// What this replica remembers of keys. Only of those that were found good, so nobody can swell it.
#[derive(Debug)]
pub struct ServiceKeys {
    given: Option<GivenServiceKey>,
    known: RwLock<Known>,
    used: Mutex<BTreeMap<String, OffsetDateTime>>,
    clock: Arc<dyn SteadyClock>,
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<Vec<u8>, KnownKey>,
    /// Counts what was revoked here. A read that began before is not remembered: it may be older than that.
    epoch: u64,
}

#[derive(Debug)]
struct KnownKey {
    key: Arc<ServiceKey>,
    /// By the replica's clock.
    until: Duration,
    /// When its use was last noted, in seconds since 1970.
    used_at: AtomicI64,
}

/// The key behind a text.
pub(crate) async fn authenticate(auth: &Auth, text: &str) -> Result<Arc<ServiceKey>, ApiError> {
    let keys = &auth.service_keys;
    if let Some(key) = keys.given.as_ref().and_then(|given| given.find(text)) {
        return Ok(key);
    }
    let refusal = || ApiError::new(&codes::SERVICE_UNAUTHENTICATED);
    let hash = ServiceKeySecret::parse(text).map_err(|_| refusal())?.hash();
    let now = auth.clock.now();
    if let Some(key) = keys.recall(hash, now) {
        return Ok(key);
    }
    let (epoch, began) = (keys.epoch(), keys.clock.elapsed());
    let mut connection = auth.database.acquire().await?;
    let found = store::find_good(&mut connection, hash).await?;
    drop(connection);
    let Some((key, last_used_at)) = found else {
        keys.forget(hash);
        return Err(refusal());
    };
    let key = KnownKey {
        key: Arc::new(key),
        until: began.saturating_add(REMEMBER_FOR),
        used_at: AtomicI64::new(last_used_at.map_or(i64::MIN, OffsetDateTime::unix_timestamp)),
    };
    Ok(keys.remember(epoch, hash, key, now))
}

/// Writes down which keys were used since the last call.
///
/// # Errors
/// When the database fails; a use is noted anew when the database is asked for the key again.
pub async fn write_notes(auth: &Auth) -> Result<(), DbError> {
    let used = std::mem::take(&mut *auth.service_keys.used.lock().unwrap_or_else(PoisonError::into_inner));
    if used.is_empty() {
        return Ok(());
    }
    let (ids, at): (Vec<_>, Vec<_>) = used.into_iter().unzip();
    let mut connection = auth.database.acquire().await?;
    store::update_used(&mut connection, &ids, &at).await?;
    connection.finish().await
}

impl ServiceKeys {
    /// Nothing remembered yet, with the key that the environment gives.
    pub fn new(given: Option<GivenServiceKey>, clock: Arc<dyn SteadyClock>) -> Self {
        Self { given, known: RwLock::default(), used: Mutex::default(), clock }
    }

    /// Forgets all keys: one was revoked.
    pub(super) fn forget_all(&self) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.epoch = known.epoch.wrapping_add(1);
        known.keys.clear();
    }

    fn forget(&self, hash: ServiceKeyHash) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).keys.remove(hash.as_bytes());
    }

    fn recall(&self, hash: ServiceKeyHash, now: OffsetDateTime) -> Option<Arc<ServiceKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let found = known.keys.get(hash.as_bytes()).filter(|known| self.clock.elapsed() < known.until)?;
        self.note(found, now);
        Some(Arc::clone(&found.key))
    }

    fn epoch(&self) -> u64 {
        self.known.read().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// Remembers what was read after `epoch` began, unless a key was revoked since.
    fn remember(
        &self,
        epoch: u64,
        hash: ServiceKeyHash,
        found: KnownKey,
        now: OffsetDateTime,
    ) -> Arc<ServiceKey> {
        self.note(&found, now);
        let key = Arc::clone(&found.key);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.epoch == epoch {
            known.keys.insert(hash.as_bytes().to_vec(), found);
        }
        key
    }

    /// Notes that a key was used, once a minute.
    fn note(&self, known: &KnownKey, now: OffsetDateTime) {
        let seconds = now.unix_timestamp();
        if seconds.saturating_sub(known.used_at.load(Ordering::Relaxed)) >= USE_STEP.whole_seconds() {
            known.used_at.store(seconds, Ordering::Relaxed);
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.insert(known.key.id.clone(), now);
        }
    }
}
