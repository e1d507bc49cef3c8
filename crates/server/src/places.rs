//! Places for connections. When all are taken, those on which nothing was ever asked give way to who comes: a client that
//! opens many and says nothing keeps nobody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// What a client has until its first request is there, before it may have to give way. Longer than the way around the earth.
const GRACE: Duration = Duration::from_millis(500);

/// While there is no place, it is seen this often who has had the grace.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// All of them.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    number: usize,
    silent: Arc<Mutex<Silent>>,
}

/// Connections on which nothing was asked yet, the oldest first.
#[derive(Debug, Default)]
struct Silent {
    connections: BTreeMap<u64, (Instant, Arc<Notify>)>,
    next: u64,
}

/// One, taken until it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    // There is always one in the end: nobody closes the semaphore.
    _permit: Option<OwnedSemaphorePermit>,
    id: u64,
    silent: Arc<Mutex<Silent>>,
    dismissal: Arc<Notify>,
}

impl Places {
    pub(crate) fn new(number: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(number)), number, silent: Arc::default() }
    }

    /// Waits for one, and has who is silent give way.
    pub(crate) async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        let mut taken = std::pin::pin!(Arc::clone(&self.free).acquire_owned());
        loop {
            self.dismiss_silent();
            if let Ok(permit) = tokio::time::timeout(BETWEEN_LOOKS, &mut taken).await {
                return permit.ok();
            }
        }
    }

    /// For a connection that was just accepted.
    pub(crate) fn take(&self, permit: Option<OwnedSemaphorePermit>) -> Place {
        let dismissal = Arc::<Notify>::default();
        let mut silent = lock(&self.silent);
        let id = silent.next;
        silent.next = id.wrapping_add(1);
        silent.connections.insert(id, (Instant::now(), Arc::clone(&dismissal)));
        drop(silent);
        Place { _permit: permit, id, silent: Arc::clone(&self.silent), dismissal }
    }

    /// Whether hardly a place is left: then none is kept for a request that may come.
    pub(crate) fn are_scarce(&self) -> bool {
        self.free.available_permits() <= self.number / 10
    }

    fn dismiss_silent(&self) {
        let mut silent = lock(&self.silent);
        while let Some(oldest) = silent.connections.first_entry() {
            if oldest.get().0.elapsed() < GRACE {
                break;
            }
            metrics::counter!("http_connections_dismissed_total").increment(1);
            oldest.remove().1.notify_one();
        }
    }
}

impl Place {
    /// From now on it is nobody's but this client's.
    pub(crate) fn is_asked_for_something(&self) {
        lock(&self.silent).connections.remove(&self.id);
    }

    /// Waits until its client has to give way.
    pub(crate) async fn dismissed(&self) {
        self.dismissal.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.is_asked_for_something();
    }
}

fn lock(silent: &Mutex<Silent>) -> MutexGuard<'_, Silent> {
    silent.lock().unwrap_or_else(PoisonError::into_inner)
}
