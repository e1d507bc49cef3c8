//! A clock whose hand the test moves.

use mana_kernel::{Clock, SteadyClock};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use time::{Duration, OffsetDateTime};

/// Stands still until it is moved. Starts at the machine's time, because the database has that one too.
#[derive(Debug)]
pub struct FakeClock(Mutex<OffsetDateTime>);

impl FakeClock {
    /// A clock that shows the machine's time of now.
    pub fn new() -> Self {
        Self(Mutex::new(mana_platform::SystemClock.now()))
    }

    /// Moves the hand; backwards too.
    ///
    /// # Panics
    /// When another thread panicked while it moved the hand.
    pub fn advance(&self, by: Duration) {
        let mut hand = self.0.lock().expect("no test panics while it moves the hand");
        *hand = hand.saturating_add(by);
    }
}

impl Default for FakeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for FakeClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().expect("no test panics while it moves the hand")
    }
}

/// Time that passes only when the test lets it.
#[derive(Debug, Default)]
pub struct FakeSteadyClock {
    micros: AtomicU64,
}

impl FakeSteadyClock {
    /// Lets time pass.
    ///
    /// # Panics
    /// When it is more than half a million years.
    pub fn advance(&self, by: std::time::Duration) {
        self.micros
            .fetch_add(u64::try_from(by.as_micros()).expect("a test's time is short"), Ordering::Relaxed);
    }
}

impl SteadyClock for FakeSteadyClock {
    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }
}
