//! Argon2id on a bounded pool: as many at once as there are cores, a bounded queue in order of arrival, and a deadline.
//! What needs no hash never waits behind it.

use super::model::{NewPassword, PasswordError, normalised};
use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash};
use mana_kernel::Rng;
use mana_platform::telemetry::Counted;
use secrecy::{ExposeSecret as _, SecretString};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Hashes and verifies passwords. Parameters are OWASP's for Argon2id: 19 MiB, two passes, one lane.
#[derive(Debug)]
pub struct Hasher {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    patience: Duration,
    /// A hash of nobody's password: verified where there is no account, so that the answer takes as long.
    decoy: String,
}

impl Hasher {
    /// A pool that hashes `threads` at once and lets `queue` more wait, each for `patience` at most.
    ///
    /// # Errors
    /// When the hash function refuses its parameters.
    pub fn new(
        threads: usize,
        queue: usize,
        patience: Duration,
        rng: &dyn Rng,
    ) -> Result<Self, PasswordError> {
        let mut nobody = [0; 32];
        rng.fill(&mut nobody);
        Ok(Self {
            running: Arc::new(Semaphore::new(threads)),
            waiting: Arc::new(Semaphore::new(queue.saturating_add(threads))),
            patience,
            decoy: hash(&nobody, rng_salt(rng))?,
        })
    }

    /// The PHC string to store for a new password.
    pub(crate) async fn hash(
        &self,
        password: NewPassword,
        min_length: usize,
        rng: &dyn Rng,
    ) -> Result<String, PasswordError> {
        if password.length() < min_length {
            return Err(PasswordError::TooShort(min_length));
        }
        let (salt, password) = (rng_salt(rng), password.into_secret());
        self.run(move || hash(password.expose_secret().as_bytes(), salt)).await?
    }

    /// Whether `password` is the one behind `stored`. Without a stored hash it takes as long and is false.
    pub(crate) async fn verify(
        &self,
        password: &SecretString,
        stored: Option<String>,
    ) -> Result<bool, PasswordError> {
        let has_account = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.clone());
        let password = normalised(password);
        let matches = self
            .run(move || {
                PasswordHash::new(&stored).is_ok_and(|stored| {
                    Argon2::default().verify_password(password.expose_secret().as_bytes(), &stored).is_ok()
                })
            })
            .await?;
        Ok(matches && has_account)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let arrived = Instant::now();
        let in_line = self.waiting.clone().try_acquire_owned().map_err(|_| refuse())?;
        let waiting = Counted::on(metrics::gauge!("password_hashing_waiting"));
        let turn = tokio::time::timeout(self.patience, self.running.clone().acquire_owned()).await;
        drop(waiting);
        let turn: OwnedSemaphorePermit = match turn {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Err(refuse()),
        };
        metrics::histogram!("password_hashing_wait_seconds").record(arrived.elapsed());
        Ok(tokio::task::spawn_blocking(move || {
            let outcome = work();
            drop((turn, in_line));
            outcome
        })
        .await?)
    }
}

fn refuse() -> PasswordError {
    metrics::counter!("password_hashing_refused_total").increment(1);
    PasswordError::Busy
}

fn rng_salt(rng: &dyn Rng) -> [u8; 16] {
    let mut salt = [0; 16];
    rng.fill(&mut salt);
    salt
}

fn hash(password: &[u8], salt: [u8; 16]) -> Result<String, PasswordError> {
    Argon2::default()
        .hash_password_with_salt(password, &salt)
        .map(|hash| hash.to_string())
        .map_err(PasswordError::Hash)
}
