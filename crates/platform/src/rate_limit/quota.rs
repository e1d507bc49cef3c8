//! How much is allowed, and how a decision on one request reads.

use std::num::NonZeroU32;
use std::time::Duration;

/// So many in a window, at once or spread (GCRA): each one used comes back a `limit`-th of the window later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    limit: NonZeroU32,
    window: Duration,
}

impl Quota {
    /// `limit` in `window`; none if the limit is 0.
    pub fn new(limit: u32, window: Duration) -> Option<Self> {
        NonZeroU32::new(limit).map(|limit| Self { limit, window })
    }

    /// Requests in a window, and at once.
    pub fn limit(self) -> NonZeroU32 {
        self.limit
    }

    /// The window.
    pub fn window(self) -> Duration {
        self.window
    }

    /// What one request costs in time, in whole microseconds: both places that count use this number, so that they
    /// decide alike.
    pub(super) fn emission_micros(self) -> u64 {
        let micros = self.window.as_micros().checked_div(u128::from(self.limit.get())).unwrap_or_default();
        u64::try_from(micros).unwrap_or(u64::MAX).max(1)
    }

    /// Seconds until all of it is there again, when `remaining` is left.
    pub(super) fn seconds_to_full(self, remaining: u32) -> u64 {
        let used = u64::from(self.limit.get().saturating_sub(remaining));
        whole_seconds(Duration::from_micros(self.emission_micros().saturating_mul(used)))
    }
}

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may go on, and so may `remaining` more at once.
    Allowed {
        /// What is left.
        remaining: u32,
    },
    /// It may not, until `wait` is over.
    Refused {
        /// Exact.
        wait: Duration,
    },
}

/// Seconds, rounded up: whoever waits so long is not refused again, and who waits one second less is.
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_round_up_and_what_was_used_comes_back_one_by_one() {
        let quota = Quota::new(5, Duration::from_mins(1)).unwrap();
        assert_eq!(quota.emission_micros(), 12_000_000);
        assert_eq!(
            (quota.seconds_to_full(5), quota.seconds_to_full(4), quota.seconds_to_full(0)),
            (0, 12, 60)
        );
        assert_eq!(whole_seconds(Duration::from_micros(1_000_001)), 2);
        assert_eq!(Quota::new(0, Duration::from_mins(1)), None);
    }
}
