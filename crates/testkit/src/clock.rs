//! A clock whose hand the test moves.

use mana_kernel::Clock;
use std::sync::Mutex;
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
