//! The machine's own clock and randomness: the one place that owns each.

use mana_kernel::timestamp::to_microseconds;
use mana_kernel::{Clock, Rng, SteadyClock};
use std::time::Duration;
use time::OffsetDateTime;

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the owner of the machine's clock")]
    /// To the microsecond: what PostgreSQL keeps, so that an instant reads back as it was.
    fn now(&self) -> OffsetDateTime {
        to_microseconds(OffsetDateTime::now_utc())
    }
}

/// The machine's time since its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemSteadyClock;

impl SteadyClock for SystemSteadyClock {
    fn elapsed(&self) -> Duration {
        // Linux's monotonic clock stands still while the machine is suspended; this one does not.
        #[cfg(target_os = "linux")]
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        #[cfg(not(target_os = "linux"))]
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::try_from(now).unwrap_or_default()
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    /// # Panics
    /// When the operating system has no randomness to give: every secret made after that would be guessable.
    #[expect(clippy::disallowed_methods, clippy::panic, reason = "the owner of the machine's randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        if let Err(error) = getrandom::fill(bytes) {
            panic!("the operating system gives no randomness: {error}");
        }
    }
}
